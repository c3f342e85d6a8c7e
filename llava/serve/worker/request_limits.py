"""How much one request may ask for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from llava.serve.middleware.body_limits import MIB


@dataclass(frozen=True)
class RequestLimits:
    """Sizes of one request. ``max_prompt_tokens`` None: what the model's context leaves. Times in seconds."""

    max_images: int = 8
    max_image_bytes: int = 8 * MIB
    max_image_pixels: int = 25_000_000
    max_prompt_characters: int = 200_000
    max_prompt_tokens: int | None = None
    max_output_tokens: int = 1024
    queue_timeout_s: float = 60.0
    generation_timeout_s: float = 300.0


MAX_STOPS, MAX_STOP_CHARACTERS = 8, 200


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that ``from_flags`` reads."""
    default = RequestLimits()
    group = parser.add_argument_group("limits of one answer")
    group.add_argument("--max-images", type=int, default=default.max_images, help="pictures in one request")
    group.add_argument(
        "--max-image-mib", type=float, default=default.max_image_bytes / MIB, help="largest picture file, MiB"
    )
    group.add_argument(
        "--max-image-pixels", type=int, default=default.max_image_pixels, help="most pixels of a picture, undecoded"
    )
    group.add_argument(
        "--max-prompt-characters", type=int, default=default.max_prompt_characters, help="longest prompt, in characters"
    )
    group.add_argument(
        "--max-prompt-tokens", type=int, help="longest prompt, pictures included; by default the model's context"
    )
    group.add_argument(
        "--max-output-tokens",
        type=int,
        default=default.max_output_tokens,
        help="longest answer; a request that asks for more gets this much",
    )
    group.add_argument(
        "--queue-timeout", type=float, default=default.queue_timeout_s, help="seconds that a request may wait"
    )
    group.add_argument(
        "--generation-timeout",
        type=float,
        default=default.generation_timeout_s,
        help="seconds that an answer may take once it has begun",
    )


def from_flags(args: argparse.Namespace) -> RequestLimits:
    """The limits that the flags set."""
    return RequestLimits(
        args.max_images,
        int(args.max_image_mib * MIB),
        args.max_image_pixels,
        args.max_prompt_characters,
        args.max_prompt_tokens,
        args.max_output_tokens,
        args.queue_timeout,
        args.generation_timeout,
    )
