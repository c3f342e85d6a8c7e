"""Preprocesses conversations under upstream's names, by the template that ``llava.conversation`` has as its default.

A script sets that template as with upstream: ``llava.conversation.default_conversation = conv_templates["v1"]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from llava import conversation
from llava.constants import IGNORE_INDEX
from llava.conversation import Conversation, SeparatorStyle, conv_templates
from llava.errors import OptionError
from llava.protocols import Tokenizer
from llava.train.data import preprocessing
from llava.train.data.preprocessing import ImageTagSettings, Message

Sources = Sequence[Sequence[Message]]
IN_LISTS = (SeparatorStyle.SINGLE, SeparatorStyle.PLAIN)  # styles whose samples upstream does not stack


def preprocess_multimodal(sources: Sources, data_args: ImageTagSettings) -> list[list[Message]]:
    """Move the image tag to the start of its message, and wrap it as the default template and ``data_args`` say."""
    return preprocessing.preprocess_multimodal(sources, data_args, conversation.default_conversation)


def preprocess(sources: Sources, tokenizer: Tokenizer, has_image: bool = False) -> dict[str, Any]:
    """Tokenize N conversations by the default template: ``{"input_ids", "labels"}``, (N, T) or a list of N (T,).

    Raises DataError for a conversation that the template cannot express.
    """
    return _preprocess(sources, tokenizer, has_image, conversation.default_conversation)


def preprocess_v1(sources: Sources, tokenizer: Tokenizer, has_image: bool = False) -> dict[str, Any]:
    """Tokenize N conversations for Vicuna v1: (N, T). Raises OptionError for a default template of another style."""
    return _preprocess(sources, tokenizer, has_image, _default_of("preprocess_v1", SeparatorStyle.TWO))


def preprocess_llama_2(sources: Sources, tokenizer: Tokenizer, has_image: bool = False) -> dict[str, Any]:
    """Tokenize N conversations for LLaMA 2: (N, T). Raises OptionError for a default template of another style."""
    return _preprocess(sources, tokenizer, has_image, _default_of("preprocess_llama_2", SeparatorStyle.LLAMA_2))


def preprocess_mpt(sources: Sources, tokenizer: Tokenizer, has_image: bool = False) -> dict[str, Any]:
    """Tokenize N conversations in ChatML: (N, T). Raises OptionError for a default template of another style."""
    return _preprocess(sources, tokenizer, has_image, _default_of("preprocess_mpt", SeparatorStyle.MPT))


def preprocess_plain(sources: Sources, tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenize N pairs of image and caption, which is trained on and ends with the default template's ``sep``."""
    template = replace(conv_templates["plain"], sep=conversation.default_conversation.sep)
    return _preprocess(sources, tokenizer, True, template)


def _default_of(function: str, style: SeparatorStyle) -> Conversation:
    template = conversation.default_conversation
    if template.sep_style is not style:
        raise OptionError(
            f"{function} needs a template of style {style.name}; llava.conversation.default_conversation has "
            f"{template.sep_style.name}"
        )
    return template


def _preprocess(sources: Sources, tokenizer: Tokenizer, has_image: bool, template: Conversation) -> dict[str, Any]:
    samples = preprocessing.preprocess(sources, tokenizer, has_image, template)
    if template.sep_style in IN_LISTS:
        return dict(samples)
    padding = {"input_ids": tokenizer.pad_token_id or 0, "labels": IGNORE_INDEX}
    stacked: dict[str, torch.Tensor] = {
        key: pad_sequence(rows, batch_first=True, padding_value=padding[key]) for key, rows in samples.items()
    }
    return stacked
