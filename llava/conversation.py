"""Defines conversation templates: how turns become the prompt that a checkpoint was trained on.

The system texts, roles and separators are those of published checkpoints and must match them to the byte.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from enum import Enum, auto
from io import BytesIO
from typing import Any

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN


class SeparatorStyle(Enum):
    """How a template separates turns."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()


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

    def append_message(self, role: str, message: Any) -> None:
        """Add a turn; None leaves it open for the model."""
        self.messages.append([role, message])

    def get_images(self, return_pil: bool = False) -> list[Any]:
        """Return the images of the user's turns, made small enough to send: PIL images, or base64 PNG texts."""
        images = []
        for _, message in self.messages[self.offset :: 2]:
            if isinstance(message, tuple):
                _, image, mode = message
                image = _reduced(_squared(image, mode))
                images.append(image if return_pil else _base64_png(image))
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
                source = f"data:image/png;base64,{_base64_png(_reduced(image))}"
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
    text = conversation.system + conversation.sep
    return text + "".join(
        f"{role}:" if m is None else f"{role}: {m}{separators[i % 2]}" for i, (role, m) in enumerate(turns)
    )


def _write_mpt(conversation: Conversation, turns: Turns) -> str:
    text = conversation.system + conversation.sep
    return text + "".join(role if m is None else f"{role}{m}{conversation.sep}" for role, m in turns)


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
}


def _squared(image: Image.Image, mode: str) -> Image.Image:
    """Return the image as the demo's "image process mode" wants it."""
    if mode in ("Default", "Crop"):
        return image
    if mode == "Resize":
        return image.resize((336, 336))
    if mode == "Pad":
        side = max(image.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square
    raise ValueError(f"image process mode is {mode!r}; expected Default, Crop, Resize or Pad")


def _reduced(image: Image.Image, longest: int = 1344, shortest: int = 672) -> Image.Image:
    """Make an image small enough to send: within ``longest`` by ``shortest`` pixels where it is larger."""
    if max(image.size) <= longest:
        return image
    aspect = max(image.size) / min(image.size)
    short = max(1, int(min(longest / aspect, shortest, min(image.size))))
    long = min(longest, int(short * aspect))
    return image.resize((long, short) if image.width > image.height else (short, long))


def _base64_png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


_CURIOUS_HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
_MMTAG = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks "
    "using natural language.The visual content will be provided with the following format: <Image>visual "
    "content</Image>."
)
_CURIOUS_USER = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
_LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
    "being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, "
    "dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive "
    "in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why "
    "instead of answering something not correct. If you don't know the answer to a question, please "
    "don't share false information."
)
_LLAVA_LLAMA_2 = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that "
    "the user provides, and assist the user with a variety of tasks using natural language."
)
_PRESET_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short amount "
    "of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the "
    "other hand, are finite and will eventually be depleted, such as coal, oil, and natural gas. Here "
    "are some key differences between renewable and non-renewable energy sources:\n1. Availability: "
    "Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite "
    "and will eventually run out.\n2. Environmental impact: Renewable energy sources have a much lower "
    "environmental impact than non-renewable sources, which can lead to air and water pollution, "
    "greenhouse gas emissions, and other negative effects.\n3. Cost: Renewable energy sources can be more "
    "expensive to initially set up, but they typically have lower operational costs than non-renewable "
    "sources.\n4. Reliability: Renewable energy sources are often more reliable and can be used in more "
    "remote locations than non-renewable sources.\n5. Flexibility: Renewable energy sources are often "
    "more flexible and can be adapted to different situations and needs, while non-renewable sources are "
    "more rigid and inflexible.\n6. Sustainability: Renewable energy sources are more sustainable over "
    "the long term, while non-renewable sources are not, and their depletion can lead to economic and "
    "social instability.\n"
)

conv_vicuna_v0 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("Human", "Assistant"),
    messages=[
        ["Human", "What are the key differences between renewable and non-renewable energy sources?"],
        ["Assistant", _PRESET_ANSWER],
    ],
    offset=2,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="Unknown",
)
conv_llava_v0 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("Human", "Assistant"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="Unknown",
)
conv_llava_v0_mmtag = Conversation(
    system=_MMTAG,
    roles=("Human", "Assistant"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="v0_mmtag",
)
conv_vicuna_v1 = Conversation(
    system=_CURIOUS_USER,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1",
)
conv_llava_v1 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1",
)
conv_llava_v1_mmtag = Conversation(
    system=_MMTAG,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1_mmtag",
)
conv_llama_2 = Conversation(
    system=_LLAMA_2,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="<s>",
    sep2="</s>",
    version="llama_v2",
)
conv_llava_llama_2 = Conversation(
    system=_LLAVA_LLAMA_2,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="<s>",
    sep2="</s>",
    version="llama_v2",
)
conv_mistral_instruct = Conversation(
    system="",
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="",
    sep2="</s>",
    version="llama_v2",
)
conv_chatml_direct = Conversation(
    system="<|im_start|>system\nAnswer the questions.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.MPT,
    sep="<|im_end|>",
    version="mpt",
)
conv_mpt = Conversation(
    system="<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.MPT,
    sep="<|im_end|>",
    version="mpt",
)
conv_llava_plain = Conversation(
    system="",
    roles=("", ""),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.PLAIN,
    sep="\n",
    version="Unknown",
)

conv_templates = {
    "default": conv_vicuna_v0,
    "v0": conv_vicuna_v0,
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llama_2": conv_llama_2,
    "mistral_instruct": conv_mistral_instruct,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "llava_v0": conv_llava_v0,
    "v0_mmtag": conv_llava_v0_mmtag,
    "llava_v1": conv_llava_v1,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2": conv_llava_llama_2,
    "mpt": conv_mpt,
}
default_conversation = conv_vicuna_v1


def template_of_name(model_name: str) -> Conversation:
    """Return a copy of the template that upstream's command line takes for a model of this name.

    For a name that no rule knows it is LLaVA v1's, where upstream takes the first LLaVA's.
    """
    name = model_name.lower()
    rules = {
        "llama-2": "llava_llama_2",
        "mistral": "mistral_instruct",
        "v1.6-34b": "chatml_direct",
        "v1": "llava_v1",
        "mpt": "mpt",
        "v0": "llava_v0",
    }
    return conv_templates[next((mode for part, mode in rules.items() if part in name), "llava_v1")].copy()


def stop_text(conversation: Conversation) -> str | None:
    """Return the text that ends an answer under this template."""
    if conversation.sep_style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2):
        return conversation.sep2
    return conversation.sep
