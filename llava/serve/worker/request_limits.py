"""Limits of one request to a worker: images, prompt, answer, waiting and answering time."""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import OptionError
from llava.flags import flag
from llava.serve.middleware.body_limits import MIB

MAX_STOPS, MAX_STOP_CHARACTERS = 8, 200


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one answer."""

    max_images: int = flag(8, "maximum number of images in one request")
    max_image_bytes: int = flag(8 * MIB, "maximum size of an image file, in MiB", name="--max-image-mib", unit=MIB)
    max_image_pixels: int = flag(25_000_000, "maximum number of pixels of an image; checked before it is decoded")
    image_timeout_s: float = flag(
        30.0, "maximum time that reading a request's images may take, in seconds", name="--image-timeout"
    )
    image_threads: int | None = flag(
        None, "number of threads that read large images; by default half of the cores, at most 4"
    )
    ignore_exif_orientation: bool = flag(
        False, "read images as they are stored; by default they are turned upright as their EXIF orientation says"
    )
    max_prompt_characters: int = flag(200_000, "maximum length of a prompt, in characters")
    max_prompt_tokens: int | None = flag(
        None, "maximum length of a prompt, in tokens, image tokens included; by default the model's context length"
    )
    max_output_tokens: int = flag(
        1024, "maximum length of an answer, in tokens; a request that asks for more gets this many"
    )
    queue_timeout_s: float = flag(60.0, "maximum time that a request may wait, in seconds", name="--queue-timeout")
    generation_timeout_s: float = flag(
        300.0, "maximum time that an answer may take once it has begun, in seconds", name="--generation-timeout"
    )

    def __post_init__(self) -> None:
        counts = {
            "--max-images": (self.max_images, 0),
            "--max-image-mib": (self.max_image_bytes / MIB, 0),
            "--max-image-pixels": (self.max_image_pixels, 0),
            "--image-threads": (1 if self.image_threads is None else self.image_threads, 1),
            "--max-prompt-characters": (self.max_prompt_characters, 1),
            "--max-prompt-tokens": (1 if self.max_prompt_tokens is None else self.max_prompt_tokens, 1),
            "--max-output-tokens": (self.max_output_tokens, 1),
        }
        for name, (count, minimum) in counts.items():
            if not count >= minimum:
                raise OptionError(f"{name} is {count:g}; expected {minimum} or more")
        times = {
            "--image-timeout": self.image_timeout_s,
            "--queue-timeout": self.queue_timeout_s,
            "--generation-timeout": self.generation_timeout_s,
        }
        for name, seconds in times.items():
            if not seconds > 0:  # NaN is refused, too
                raise OptionError(f"{name} is {seconds:g}; expected seconds above 0")
