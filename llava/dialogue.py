"""Holds a conversation: the turns so far, and how a template's separators make them a prompt."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from enum import Enum, auto
from io import BytesIO
from typing import Any

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN

MAX_SQUARE_PIXELS = 50_000_000
LONGEST_SENT = 1344  # pixels of an image's longer side


class SeparatorStyle(Enum):
    """How a template separates turns."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()
    CHATML = auto()  # LLaVA-NeXT's for Qwen: as MPT, with a line end after each role and each message


@dataclass
class Conversation:
    """A template and the turns so far.

    ``messages`` holds [role, message] pairs; a message is a string, None (open: the model is to answer), or a tuple
    (text, image, image process mode). The first ``offset`` messages belong to the template.
    """

    system: str
    roles: tuple[str, ...]
    messages: list[list[Any]]
    offset: int
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"
    skip_next: bool = False

    def get_prompt(self) -> str:
        """Return all turns as text, open where the last message is None."""
        # An image without text is a turn; an empty text is not.
        turns = [(role, text[0] if isinstance(text, tuple) else text or None) for role, text in self._turns()]
        return _WRITERS[self.sep_style](self, turns)

    def _turns(self) -> list[tuple[str, Any]]:
        """Return the messages; the image tag of a first (text, image) turn stands where the version wants it."""
        turns = [(role, message) for role, message in self.messages]
        if not turns or not isinstance(turns[0][1], tuple):
            return turns
        role, (text, *_) = turns[0]
        text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" not in self.version:
            return [(role, f"{DEFAULT_IMAGE_TOKEN}\n{text}"), *turns[1:]]
        announced = [(self.roles[0], f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>"), (self.roles[1], "Received.")]
        return [*announced, (role, text), *turns[1:]]

    def append_message(self, role: str, message: str | tuple[Any, ...] | None) -> None:
        """Add a turn; None leaves it open for the model."""
        self.messages.append([role, message])

    def process_image(
        self,
        image: Image.Image,
        image_process_mode: str,
        return_pil: bool = False,
        image_format: str = "PNG",
        max_len: int = 1344,
        min_len: int = 672,
    ) -> Any:
        """Make an image square as ``image_process_mode`` wants it and small enough to send: PIL image or base64 text.

        max_len, min_len: maxima of the longer and the shorter side, in pixels. Raises ValueError for an unknown mode.
        """
        reduced = _reduced(_squared(image, image_process_mode), max_len, min_len)
        return reduced if return_pil else _base64_text(reduced, image_format)

    def get_images(self, return_pil: bool = False) -> list[Any]:
        """Return the images of the user's turns, made small enough to send: PIL images, or base64 PNG texts."""
        images = []
        for _, message in self.messages[self.offset :: 2]:
            if isinstance(message, tuple):
                _, image, mode = message
                images.append(self.process_image(image, mode, return_pil))
        return images

    def to_gradio_chatbot(self) -> list[list[Any]]:
        """Return pairs [question, answer] for a chat window, images inline."""
        pairs: list[list[Any]] = []
        for index, (_, message) in enumerate(self.messages[self.offset :]):
            if index % 2:
                pairs[-1][1] = message
                continue
            if isinstance(message, tuple):
                text, image, _ = message
                source = f"data:image/png;base64,{_base64_text(_reduced(image))}"
                message = f'<img src="{source}" alt="user upload image" />' + text.replace("<image>", "").strip()
            pairs.append([message, None])
        return pairs

    def copy(self) -> Conversation:
        """Return an independent conversation with the same turns."""
        return replace(self, messages=[[role, message] for role, message in self.messages])

    def dict(self) -> dict[str, Any]:
        """Return JSON-ready fields; images are left out."""
        messages = [[role, x[0] if isinstance(x, tuple) else x] for role, x in self.messages]
        return {
            "system": self.system,
            "roles": self.roles,
            "messages": messages,
            "offset": self.offset,
            "sep": self.sep,
            "sep2": self.sep2,
        }


Turns = list[tuple[str, Any]]


def _write_single(conversation: Conversation, turns: Turns) -> str:
    text = conversation.system + conversation.sep
    return text + "".join(f"{role}:" if m is None else f"{role}: {m}{conversation.sep}" for role, m in turns)


def _write_two(conversation: Conversation, turns: Turns) -> str:
    separators = (conversation.sep, conversation.sep2 or "")
    first = int(bool(turns) and turns[0][0] == conversation.roles[1])  # the assistant may begin
    text = conversation.system + conversation.sep
    return text + "".join(
        f"{role}:" if m is None else f"{role}: {m}{separators[i % 2]}" for i, (role, m) in enumerate(turns, first)
    )


def _write_mpt(conversation: Conversation, turns: Turns) -> str:
    text = conversation.system + conversation.sep
    return text + "".join(role if m is None else f"{role}{m}{conversation.sep}" for role, m in turns)


def _write_chatml(conversation: Conversation, turns: Turns) -> str:
    end = f"{conversation.sep}\n"
    text = f"{conversation.system}{end}" if conversation.system else ""
    return text + "".join(f"{role}\n" if m is None else f"{role}\n{m}{end}" for role, m in turns)


def _write_plain(conversation: Conversation, turns: Turns) -> str:
    separators = (conversation.sep, conversation.sep2 or "")
    return conversation.system + "".join(m + separators[i % 2] for i, (_, m) in enumerate(turns) if m is not None)


def _write_llama_2(conversation: Conversation, turns: Turns) -> str:
    text = ""
    for index, (role, message) in enumerate(turns):
        if index == 0 and (message is None or role != conversation.roles[0]):
            raise ValueError(f"a conversation of this template begins with a message of {conversation.roles[0]!r}")
        if message is None:
            continue
        if index == 0 and conversation.system:
            message = f"<<SYS>>\n{conversation.system}\n<</SYS>>\n\n{message}"
        if index % 2 == 0:
            text += f"{conversation.sep}[INST] {message} [/INST]"
        else:
            text += f" {message} {conversation.sep2}"
    return text.removeprefix(conversation.sep)


_WRITERS = {
    SeparatorStyle.SINGLE: _write_single,
    SeparatorStyle.TWO: _write_two,
    SeparatorStyle.MPT: _write_mpt,
    SeparatorStyle.PLAIN: _write_plain,
    SeparatorStyle.LLAMA_2: _write_llama_2,
    SeparatorStyle.CHATML: _write_chatml,
}


def _squared(image: Image.Image, mode: str) -> Image.Image:
    """Return the image as the demo's "image process mode" wants it."""
    if mode in ("Default", "Crop"):
        return image
    if mode == "Resize":
        return image.resize((336, 336))
    if mode == "Pad":
        side = max(image.size)
        if side * side > MAX_SQUARE_PIXELS:  # a thin image: the square is made smaller in any case
            image = _reduced(image, 2 * LONGEST_SENT)
            side = max(image.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square
    raise ValueError(f"image process mode is {mode!r}; expected Default, Crop, Resize or Pad")


def _reduced(image: Image.Image, longest: int = LONGEST_SENT, shortest: int = 672) -> Image.Image:
    """Make an image small enough to send: within ``longest`` by ``shortest`` pixels where it is larger."""
    if max(image.size) <= longest:
        return image
    aspect = max(image.size) / min(image.size)
    short = max(1, int(min(longest / aspect, shortest, min(image.size))))
    long = min(longest, int(short * aspect))
    return image.resize((long, short) if image.width > image.height else (short, long))


def _base64_text(image: Image.Image, image_format: str = "PNG") -> str:
    buffer = BytesIO()
    image.save(buffer, format=image_format)
    return base64.b64encode(buffer.getvalue()).decode()


def stop_text(conversation: Conversation) -> str | None:
    """Return the text that ends an answer under this template."""
    if conversation.sep_style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2):
        return conversation.sep2
    return conversation.sep
