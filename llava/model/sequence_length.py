"""Counts positions of a sequence: what a checkpoint's context holds, what a prompt takes, what is left for an answer.

Every program asks here, so that one limit holds for all: chat, evaluation, worker and training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, OptionError
from llava.protocols import LlavaModel

DEFAULT_CONTEXT = 2048  # positions, of a config that states nothing: as upstream

POSITION_FIELDS = ("max_position_embeddings", "max_seq_len", "n_positions", "seq_length")
"""A decoder's number of positions, as the families name it (Llama, Mistral and Qwen2; MPT; GPT-2; Bloom)."""

# Kinds of rotary embedding whose factor extends the positions that a config states. Configs of the other kinds
# (llama3, longrope) state the extended number.
EXTENDING_ROPE = ("linear", "dynamic", "yarn")


def context_length(config: object) -> int:
    """Return how many positions a prompt and its answer may take in all, by a checkpoint's config.

    That is ``max_sequence_length`` where the config states it, but no more than the decoder's positions; otherwise
    these: the first of ``POSITION_FIELDS``, times the factor of a scaled rotary embedding; otherwise 2048. A nested
    ``text_config`` is read after the config itself. ``tokenizer_model_max_length`` is where training cut its samples,
    and ``sliding_window`` how far back one layer sees: neither ends the context. Raises CheckpointError for a field
    that is not a positive integer.
    """
    parts = [part for part in (config, _field(config, "text_config")) if part is not None]
    stated = _first(parts, ("max_sequence_length",))
    positions = _first(parts, POSITION_FIELDS)
    if positions is not None:
        positions = _extended(positions, _rope(parts))
    known = [length for length in (stated, positions) if length is not None]
    return min(known, default=DEFAULT_CONTEXT)


def prompt_length(ids: Sequence[int], image_sizes: Sequence[tuple[int, int]], model: LlavaModel) -> int:
    """Return how many positions a prompt takes, with its images.

    ids: token ids, an image tag being one. image_sizes: (width, height) of each tag's image. Raises ImageError for
    images that the model cannot see.
    """
    text = sum(token != IMAGE_TOKEN_INDEX for token in ids)
    return text + sum(model.max_image_tokens(size, len(image_sizes)) for size in image_sizes)


def check_prompt_length(length: int, maximum: int, prompt: str = "the prompt") -> None:
    """Raise OptionError for a prompt of more than ``maximum`` positions. prompt: how the message names it."""
    if length > maximum:
        raise OptionError(
            f"{prompt} has {length:,} tokens, image tokens included; the maximum is {maximum:,}. Ask a shorter "
            "question, or start a new conversation"
        )


def answer_limit(length: int, context: int, wanted: int, prompt: str = "the prompt") -> int:
    """Return how many tokens the answer to a prompt of ``length`` positions may have: ``wanted``, or what is left.

    context: what ``context_length`` returned. Raises OptionError for a prompt that leaves no position for an answer.
    """
    check_prompt_length(length, context - 1, prompt)
    return min(wanted, context - length)


def _field(part: object, name: str) -> Any:
    """Return a field of a config, or of a part of one that is still a dictionary; None where it is not there."""
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def _first(parts: Sequence[object], names: Sequence[str]) -> int | None:
    """Return the first of some fields that is stated. Raises CheckpointError for one that is no length."""
    for part in parts:
        for name in names:
            value = _field(part, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"{name} in config.json is {value!r}; expected a number of positions, above 0")
            return value
    return None


def _rope(parts: Sequence[object]) -> Mapping[str, Any]:
    """Return the settings of the rotary embedding; of a decoder with one for each kind of layer, full attention's."""
    for part in parts:
        for name in ("rope_parameters", "rope_scaling"):
            found = _field(part, name)
            if isinstance(found, Mapping) and found:
                nested = found.get("full_attention")
                return nested if isinstance(nested, Mapping) else found
    return {}


def _extended(positions: int, rope: Mapping[str, Any]) -> int:
    """Return the positions that a rotary embedding reaches.

    A config that states the length before scaling may already state the length after it as its positions.
    """
    if (rope.get("rope_type") or rope.get("type")) not in EXTENDING_ROPE:
        return positions
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings") or positions
    if not isinstance(factor, (int, float)) or not factor >= 1:
        return positions
    return max(positions, int(original * factor))
