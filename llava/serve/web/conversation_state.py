"""One browser's conversation: what was said, about which pictures, and the request that asks for the next answer."""

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

LONGEST_SIDE = 800  # pixels; what vision towers look at is smaller


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent: PNG bytes."""

    png: bytes

    @classmethod
    def read(cls, path: str) -> Picture:
        """A file that the browser sent. Raises ``ImageError`` for what is no picture, or too large a one."""
        if not Path(path).is_file():
            raise ImageError("the picture has not arrived; send it again")
        image = load_image(path)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return cls(buffer.getvalue())

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.png).hexdigest()

    def open(self) -> Image.Image:
        """The picture."""
        return Image.open(io.BytesIO(self.png))


@dataclass
class Turn:
    """A question with its pictures, and the answer; None while there is none."""

    question: str
    pictures: tuple[Picture, ...] = ()
    answer: str | None = None


@dataclass
class WebChat:
    """A conversation with ``model``, render_prompt by the template ``mode``."""

    model: str = ""
    mode: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def ask(self, question: str, files: Sequence[str]) -> None:
        """Put a question. Raises ``ImageError``; then nothing has changed."""
        if not question.strip() and not files:
            raise ImageError("there is nothing to ask: write a question, or add a picture")
        self.turns.append(Turn(question.strip(), tuple(Picture.read(path) for path in files)))

    def ask_again(self) -> None:
        """Forget the last answer, so that it can be given once more."""
        if self.turns:
            self.turns[-1].answer = None

    def request(self, sampling: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """The body that asks for the last turn's answer. ``sampling``: temperature, top_p, max_new_tokens; ``fields``:
        the plug-ins'."""
        known = conv_templates.get(self.mode or "")
        conversation = template_of_name(self.model) if known is None else known.copy()
        for turn in self.turns:
            tags = f"{DEFAULT_IMAGE_TOKEN}\n" * len(turn.pictures)
            conversation.append_message(conversation.roles[0], tags + turn.question)
            conversation.append_message(conversation.roles[1], turn.answer)
        pictures = [base64.b64encode(p.png).decode() for turn in self.turns for p in turn.pictures]
        return {
            "model": self.model,
            "prompt": conversation.get_prompt(),
            "stop": stop_text(conversation),
            "images": pictures,
            **sampling,
            **fields,
        }

    def record(self) -> dict[str, Any]:
        """For a log: pictures by their digests."""
        return {
            "model": self.model,
            "conv_mode": self.mode,
            "turns": [
                {"question": t.question, "images": [p.digest for p in t.pictures], "answer": t.answer}
                for t in self.turns
            ],
        }
