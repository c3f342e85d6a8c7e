"""Turns conversations into token ids and labels, by the template that a model is trained with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, conv_templates, default_conversation
from llava.errors import DataError
from llava.mm_utils import tokenizer_image_token
from llava.protocols import Tokenizer
from llava.train.data.chatml_label_masks import check_turns, mask_answers, upstream_labels
from llava.train.data.label_masks import mask_messages, mask_rounds

Message = dict[str, str]
Sample = dict[str, torch.Tensor]

_BEGIN_SIGNAL, _END_SIGNAL = "### ", "\n"


class ImageTagSettings(Protocol):
    """Which image tags a conversation gets: none unless ``is_multimodal``."""

    @property
    def is_multimodal(self) -> bool:
        """Whether the model has a vision tower."""

    @property
    def mm_use_im_start_end(self) -> bool:
        """Whether a token goes before and after each image."""


def mode_of(version: str) -> str:
    """Return the key of the template that ``--version`` names; ``v0`` and unknown names mean Vicuna's, as upstream."""
    return "vicuna_v1" if version in ("v0", "v1") or version not in conv_templates else version


def template_of(version: str) -> Conversation:
    """Return the conversation template that ``--version`` names."""
    return conv_templates[mode_of(version)]


def preprocess_multimodal(
    sources: Sequence[Sequence[Message]], data_args: ImageTagSettings, template: Conversation = default_conversation
) -> list[list[Message]]:
    """Move the image tag to the start of its message, and wrap it as template and flags say."""
    if not data_args.is_multimodal:
        return [list(source) for source in sources]
    return [[{**m, "value": _move_tag(m["value"], data_args, template)} for m in source] for source in sources]


def _move_tag(text: str, data_args: ImageTagSettings, template: Conversation) -> str:
    if DEFAULT_IMAGE_TOKEN not in text:
        return text
    text = f"{DEFAULT_IMAGE_TOKEN}\n{text.replace(DEFAULT_IMAGE_TOKEN, '').strip()}".strip()
    if "mmtag" in template.version:
        text = text.replace(DEFAULT_IMAGE_TOKEN, f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>")
    if data_args.mm_use_im_start_end:
        text = text.replace(DEFAULT_IMAGE_TOKEN, DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN)
    return text


def preprocess(
    sources: Sequence[Sequence[Message]],
    tokenizer: Tokenizer,
    has_image: bool = False,
    template: Conversation = default_conversation,
    sample: str = "?",
) -> dict[str, list[torch.Tensor]]:
    """Tokenize conversations into ``{"input_ids": [(T,), ...], "labels": [(T,), ...]}``, one entry a source.

    sample: the name for messages. Raises ``DataError`` for a conversation that the template cannot express.
    """
    samples = [_preprocess_one(source, tokenizer, has_image, template, sample) for source in sources]
    return {key: [s[key] for s in samples] for key in ("input_ids", "labels")}


def _preprocess_one(
    source: Sequence[Message], tokenizer: Tokenizer, has_image: bool, template: Conversation, sample: str
) -> Sample:
    if template.sep_style is SeparatorStyle.PLAIN:
        return _plain(source, tokenizer, template, sample)
    if template.sep_style is SeparatorStyle.SINGLE:
        return _single(source, tokenizer, has_image, template)
    if template.sep_style in (SeparatorStyle.MPT, SeparatorStyle.CHATML):
        return _chatml(source, tokenizer, has_image, template, sample)
    return _rounds(source, tokenizer, has_image, template, sample)


def round_marks(template: Conversation) -> tuple[str, str] | None:
    """Return the texts between question and answer, and after the answer; None for templates without rounds."""
    if template.sep_style is SeparatorStyle.TWO:
        return f"{template.sep}{template.roles[1]}: ", template.sep2 or ""
    if template.sep_style is SeparatorStyle.LLAMA_2:
        return "[/INST] ", template.sep2 or ""
    return None


def reserved_marks(template: Conversation) -> list[str]:
    """Return the texts that no message may hold, as they separate turns; none for templates that take any text."""
    if template.sep_style in (SeparatorStyle.MPT, SeparatorStyle.CHATML):
        return [template.sep]
    return [mark for mark in round_marks(template) or () if mark]


def takes_empty_questions(template: Conversation) -> bool:
    """Return whether a question may have no text; other templates would leave out its turn."""
    return template.sep_style in (SeparatorStyle.SINGLE, SeparatorStyle.PLAIN)


def _rounds(
    source: Sequence[Message], tokenizer: Tokenizer, has_image: bool, template: Conversation, sample: str
) -> Sample:
    """Tokenize for Vicuna v1 and LLaMA 2: rounds of question and answer, each ended by </s>."""
    marks = round_marks(template)
    assert marks is not None  # the other styles are handled elsewhere
    conversation = _conversation(source, template, sample)
    text = conversation.get_prompt()
    ids = _encode(text, tokenizer, has_image)
    count = functools.partial(_count, tokenizer=tokenizer, has_image=has_image)
    labels = mask_rounds(ids, text, count, *marks, limit=tokenizer.model_max_length, sample=sample)
    return {"input_ids": ids, "labels": labels}


def _plain(source: Sequence[Message], tokenizer: Tokenizer, template: Conversation, sample: str) -> Sample:
    """Tokenize for stage 1: the image, then its caption, which is trained on."""
    if len(source) != 2 or DEFAULT_IMAGE_TOKEN not in source[0]["value"]:
        raise DataError(
            f"sample {sample}: the plain template takes one request with {DEFAULT_IMAGE_TOKEN} and one answer, got "
            f"{len(source)} messages"
        )
    ids = _encode(DEFAULT_IMAGE_TOKEN + source[1]["value"] + template.sep, tokenizer, True)
    return {"input_ids": ids, "labels": mask_messages(ids, _count(DEFAULT_IMAGE_TOKEN, tokenizer, True), [], [])}


def _single(source: Sequence[Message], tokenizer: Tokenizer, has_image: bool, template: Conversation) -> Sample:
    """Tokenize in the first LLaVA's form: a header, then "### Role: message" lines."""
    roles = {"human": template.roles[0], "gpt": template.roles[1]}
    header = f"{template.system}\n\n"
    lines = [f"{_BEGIN_SIGNAL}{roles.get(m['from'].lower(), 'unknown')}: {m['value']}{_END_SIGNAL}" for m in source]
    ids = _encode(header + "".join(lines) + _BEGIN_SIGNAL, tokenizer, has_image)
    lengths = [_count(text, tokenizer, has_image) for text in (header, *lines)]
    labels = mask_messages(ids, lengths[0], lengths[1:], [m["from"].lower() == "human" for m in source])
    return {"input_ids": ids, "labels": labels}


def _chatml(
    source: Sequence[Message], tokenizer: Tokenizer, has_image: bool, template: Conversation, sample: str
) -> Sample:
    """Tokenize in ChatML: every message begins with its role and ends with the end mark."""
    conversation, end = _conversation(source, template, sample), template.sep
    text = conversation.get_prompt()
    ids = _encode(text, tokenizer, has_image)
    count = functools.partial(_count, tokenizer=tokenizer, has_image=has_image, truncate=False)
    labels = None
    if template.sep_style is SeparatorStyle.MPT:
        labels = _upstream_chatml_labels(ids, text, tokenizer, template, count)
    if labels is None:
        # A line end that follows an end mark is read as the beginning of the next turn: it is not trained on.
        line = "\n" if template.sep_style is SeparatorStyle.CHATML else ""
        roles = {role: f"{line}{role}{line}" for role in template.roles}
        answerer = roles[template.roles[1]]
        turns = [(roles[who] == answerer, f"{roles[who]}{message}{end}") for who, message in conversation.messages]
        check_turns(turns, answerer, end, sample)
        labels = mask_answers(ids, conversation.system + end, turns, answerer, count)
    return {"input_ids": ids, "labels": labels}


def _upstream_chatml_labels(
    ids: torch.Tensor, text: str, tokenizer: Tokenizer, template: Conversation, count: Callable[[str], int]
) -> torch.Tensor | None:
    pad = tokenizer.pad_token_id
    return upstream_labels(
        ids,
        text,
        template.roles[1],
        template.sep,
        count,
        limit=tokenizer.model_max_length,
        late=getattr(tokenizer, "legacy", False),
        real=len(ids) if pad is None else int((ids != pad).sum()),
    )


def _conversation(source: Sequence[Message], template: Conversation, sample: str) -> Conversation:
    """Return the template with a record's turns, for templates that have no form for an empty question.

    Raises ``DataError`` for one, and where human and gpt do not take turns.
    """
    roles = {"human": template.roles[0], "gpt": template.roles[1]}
    turns = list(source)
    if turns and turns[0]["from"] == "gpt":
        turns = turns[1:]  # some data sets begin with a greeting
    if not turns:
        raise DataError(f"sample {sample}: it has no question")
    conversation = template.copy()
    conversation.messages = []
    for index, message in enumerate(turns):
        role = roles.get(message["from"])
        if role != conversation.roles[index % 2]:
            raise DataError(
                f"sample {sample}: message {index + 1} is from {message['from']!r}; human and gpt must take turns"
            )
        if index % 2 == 0 and not message["value"]:
            raise DataError(
                f"sample {sample}: message {index + 1} is an empty question, which this template has no form for"
            )
        conversation.append_message(role, message["value"])
    return conversation


def _encode(text: str, tokenizer: Tokenizer, has_image: bool) -> torch.Tensor:
    """Tokenize a text into ids (T,); without an image it is cut here, else once the image's length is known."""
    if has_image:
        tagged: torch.Tensor = tokenizer_image_token(text, tokenizer, return_tensors="pt")
        return tagged
    ids = tokenizer(text, max_length=tokenizer.model_max_length, truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.long)


def _count(text: str, tokenizer: Tokenizer, has_image: bool, truncate: bool = True) -> int:
    if has_image:
        return len(tokenizer_image_token(text, tokenizer))
    cut = {"max_length": tokenizer.model_max_length, "truncation": True} if truncate else {}
    return len(tokenizer(text, **cut).input_ids)
