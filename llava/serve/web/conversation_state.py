"""One browser's conversation: its turns and images, and the request that asks for the next answer."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates, stop_text, template_of_name
from llava.errors import ImageError, OptionError
from llava.files.images import MIB, REQUEST_FORMATS, ImageLimits, open_image
from llava.serve.turns import Turn as PromptTurn
from llava.serve.turns import joined_turns, render_turns, without_image_tags

MAX_SIDE = 800  # pixels; vision towers read smaller ones
MAX_IMAGES = 8  # of a conversation, as workers take by default
LIMITS = ImageLimits(max_bytes=20 * MIB, max_pixels=50_000_000, formats=REQUEST_FORMATS, still=True)


@dataclass(frozen=True)
class UploadedImage:
    """An image as it is sent to a worker, in PNG bytes, and the ``path`` of the file that the browser sent."""

    png: bytes
    path: str

    @classmethod
    def read(cls, path: str, number: int) -> UploadedImage:
        """Read a file that the browser sent, upright. Raises ImageError where workers would refuse it, or too large.

        number: the image's in its question; messages name it by this, not by where the server keeps the file.
        """
        name = f"image {number}"
        if not Path(path).is_file():
            raise ImageError(f"{name} has not arrived, or was deleted meanwhile; send it again")
        image = open_image(Path(path).read_bytes(), LIMITS, turn_by_exif=True, name=name).image
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return cls(buffer.getvalue(), path)

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.png).hexdigest()

    def open(self) -> Image.Image:
        """Decode the PNG bytes."""
        return Image.open(io.BytesIO(self.png))


@dataclass
class Turn:
    """A question with its images, and the answer; None while there is none."""

    question: str
    images: tuple[UploadedImage, ...] = ()
    answer: str | None = None


@dataclass
class WebChat:
    """A conversation with ``model``, whose prompts follow the template ``mode``, as its worker names it.

    "" where the model names none, None where the worker is upstream's: then it is the template of the model's name.
    """

    model: str = ""
    mode: str | None = None
    turns: list[Turn] = field(default_factory=list)
    answers: int = 0  # counts those begun or stopped: an answer goes on while no other one has begun

    def ask(self, question: str, files: Sequence[str]) -> None:
        """Append a question. Raises ``LlavaError``; then nothing has changed."""
        if not question.strip() and not files:
            raise ImageError("there is nothing to ask: write a question, or add an image")
        if DEFAULT_IMAGE_TOKEN in question:
            raise OptionError(
                f"the question holds {DEFAULT_IMAGE_TOKEN}, which stands for an image in a prompt; leave it out"
            )
        held = sum(len(turn.images) for turn in self.turns)
        if held + len(files) > MAX_IMAGES:
            raise ImageError(
                f"{len(files)} images, with {held} asked about before; a conversation may have {MAX_IMAGES}. Choose "
                "Clear for a new one"
            )
        images = tuple(UploadedImage.read(path, number) for number, path in enumerate(files, start=1))
        self.turns.append(Turn(question.strip(), images))

    @property
    def images(self) -> list[bytes]:
        """The conversation's images in their order, as PNG files."""
        return [image.png for turn in self.turns for image in turn.images]

    def take_back(self) -> Turn:
        """Remove the last question, which was not answered, and return it."""
        return self.turns.pop()

    def ask_again(self) -> None:
        """Remove the last answer, so that it can be given again."""
        if self.turns:
            self.turns[-1].answer = None

    def request(self, sampling: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a request for the last turn's answer.

        sampling: temperature, top_p, max_new_tokens. fields: the plug-ins' fields by name.
        """
        known = conv_templates.get(self.mode or "")
        template = template_of_name(self.model) if known is None else known
        said: list[PromptTurn] = []
        for turn in self.turns:
            said.append(PromptTurn(False, f"{DEFAULT_IMAGE_TOKEN}\n" * len(turn.images) + turn.question))
            said.append(PromptTurn(True, without_image_tags(turn.answer or "")))
        images = [base64.b64encode(png).decode() for png in self.images]
        return {
            "model": self.model,
            "prompt": render_turns(template, joined_turns(said)),
            "stop": stop_text(template),
            **({} if self.mode is None else {"conv_mode": self.mode}),
            "images": images,
            **sampling,
            **fields,
        }

    def record(self) -> dict[str, Any]:
        """Return the conversation for a log, with its images by their digests."""
        return {
            "model": self.model,
            "conv_mode": self.mode,
            "turns": [
                {"question": t.question, "images": [image.digest for image in t.images], "answer": t.answer}
                for t in self.turns
            ],
        }
