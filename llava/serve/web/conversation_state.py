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
from llava.errors import ImageError
from llava.files.images import load_image

MAX_SIDE = 800  # pixels; vision towers read smaller ones


@dataclass(frozen=True)
class UploadedImage:
    """An image as it is sent to a worker: PNG bytes."""

    png: bytes

    @classmethod
    def read(cls, path: str) -> UploadedImage:
        """Read a file that the browser sent. Raises ``ImageError`` where it is no image, or too large."""
        if not Path(path).is_file():
            raise ImageError("the image has not arrived; send it again")
        image = load_image(path)
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return cls(buffer.getvalue())

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
    """A conversation with ``model``, whose prompts follow the template ``mode``; None: the one of the model's name."""

    model: str = ""
    mode: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def ask(self, question: str, files: Sequence[str]) -> None:
        """Append a question. Raises ``ImageError``; then nothing has changed."""
        if not question.strip() and not files:
            raise ImageError("there is nothing to ask: write a question, or add an image")
        self.turns.append(Turn(question.strip(), tuple(UploadedImage.read(path) for path in files)))

    def ask_again(self) -> None:
        """Remove the last answer, so that it can be given again."""
        if self.turns:
            self.turns[-1].answer = None

    def request(self, sampling: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a request for the last turn's answer.

        sampling: temperature, top_p, max_new_tokens. fields: the plug-ins' fields by name.
        """
        known = conv_templates.get(self.mode or "")
        conversation = template_of_name(self.model) if known is None else known.copy()
        for turn in self.turns:
            tags = f"{DEFAULT_IMAGE_TOKEN}\n" * len(turn.images)
            conversation.append_message(conversation.roles[0], tags + turn.question)
            conversation.append_message(conversation.roles[1], turn.answer)
        images = [base64.b64encode(image.png).decode() for turn in self.turns for image in turn.images]
        return {
            "model": self.model,
            "prompt": conversation.get_prompt(),
            "stop": stop_text(conversation),
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
