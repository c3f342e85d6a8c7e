"""Answers one prompt: prompt, images and settings in; text, timing and the plug-ins' metadata out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IMAGE_PLACEHOLDER,
    IMAGE_TOKEN_INDEX,
)
from llava.conversation import Conversation, conv_templates, template_of_name
from llava.conversation import stop_text as stop_text
from llava.errors import OptionError
from llava.mm_utils import KeywordsStoppingCriteria, tokenizer_image_token
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages
from llava.model.sequence_length import answer_limit, context_length, prompt_length
from llava.plugins import hooks, merged
from llava.sampling import SamplingParams as SamplingParams
from llava.token_clock import TokenClock


@dataclass(frozen=True)
class Answer:
    """What a prompt was answered with.

    timing: milliseconds to the first token, tokens a second after it, new tokens. metadata: the plug-ins' on it.
    token_ms: milliseconds that each token after the first took. finish_reason: "stop" (the model, or a stop text,
    ended it), "length" (``max_new_tokens`` did), "abort" (it was cancelled), or what a plug-in ended it for.
    """

    text: str
    token_ids: list[int]
    timing: dict[str, float]
    metadata: dict[str, Any] = field(default_factory=dict)
    token_ms: list[float] = field(default_factory=list)
    finish_reason: str = "stop"


def answer(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    prompt: str,
    images: Sequence[Image.Image] | PreparedImages = (),
    *,
    sampling: SamplingParams | None = None,
    options: Mapping[str, Any] | None = None,
    stop: str | Sequence[str] | None = None,
    criteria: Sequence[StoppingCriteria] = (),
    stop_ids: Sequence[int] = (),
    streamer: Any = None,
    cancelled: threading.Event | None = None,
) -> Answer:
    """Answer a prompt whose image tags stand for ``images``.

    options: what plug-ins may turn into keywords of ``generate``. stop: text, or texts, that end the answer.
    criteria: what else ends it, among it the tokens ``stop_ids``, which ``min_tokens`` holds off. Time to the first
    token runs from here on: pixels, vision tower and prefill. The answer ends where the model's context does. Raises
    OptionError for a prompt that leaves no position for it.
    """
    clock = TokenClock(cancelled)
    sampling = sampling or SamplingParams()
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    keywords = generation_inputs(model, tokenizer, image_processor, prompt, images, options or {})
    length = prompt_length(keywords["inputs"][0].tolist(), keywords["image_sizes"] or [], model)
    limit = answer_limit(length, context_length(model.config), sampling.max_new_tokens)
    sampling = replace(sampling, max_new_tokens=limit)
    at_stops = [KeywordsStoppingCriteria(stops, tokenizer, keywords["inputs"])] if stops else []
    output = model.generate(
        streamer=streamer,
        clock=clock,
        stopping_criteria=StoppingCriteriaList([*at_stops, *criteria]),
        **sampling.keywords(keywords["inputs"], model.generation_config.top_k, [*end_ids(model), *stop_ids]),
        **keywords,
    )
    return finished_answer(model, tokenizer, output, output.sequences[0].tolist(), clock, sampling, stops)


def generation_inputs(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    prompt: str,
    images: Sequence[Image.Image] | PreparedImages,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return keyword arguments of ``generate`` for one prompt: token ids (1, t), pixels, and the plug-ins' own.

    images: one for each image tag of the prompt; as pixels where they were prepared before.
    """
    if not isinstance(images, PreparedImages):
        images = ImagePipeline(image_processor, model.config).prepare(images, len(images))
    ids = tokenizer_image_token(prompt, tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None].to(model.device)
    return {
        "inputs": ids,
        "images": images.to(model.device, model.dtype).pixels,
        "image_sizes": list(images.sizes) or None,
        "return_dict_in_generate": True,
        "use_cache": True,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        **merged(hooks().generation_options(model=model, options=options, tokenizer=tokenizer)),
    }


def finished_answer(
    model: Any,
    tokenizer: Any,
    output: Any,
    new: list[int],
    clock: TokenClock,
    sampling: SamplingParams,
    stops: Sequence[str] = (),
) -> Answer:
    """Make an answer of the new tokens. output: what ``generate`` returned, for the plug-ins' metadata."""
    text = tokenizer.decode(new, skip_special_tokens=True).strip()
    end_token = bool(new) and new[-1] in end_ids(model) and not sampling.ignore_eos
    ended = end_token or any(stop in text for stop in stops)
    for stop in stops:
        text = text.removesuffix(stop).strip()
    timing = clock.timing()
    metadata = merged(hooks().describe_generation(model=model, output=output, timing=timing))
    reason = "stop" if ended or len(new) < sampling.max_new_tokens else "length"
    if clock.ended_by is not None and not ended:
        reason = clock.ended_by
    if clock.cancelled is not None and clock.cancelled.is_set():
        reason = "abort"
    return Answer(text, new, timing, metadata, clock.token_ms(), reason)


def end_ids(model: Any) -> list[int]:
    """Return the ids of the tokens with which the model ends an answer; none where it names none."""
    ids = model.generation_config.eos_token_id
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def conversation_for(model: Any, model_name: str, conv_mode: str | None) -> Conversation:
    """Return the template to prompt with.

    That is ``--conv-mode``, else what the model was trained with (``conv_mode`` in its config), else what upstream
    takes for a model of this name. Raises OptionError for a mode that does not exist.
    """
    trained_with = getattr(model.config, "conv_mode", None)
    for origin, mode in (("--conv-mode", conv_mode), ("conv_mode in the checkpoint's config.json", trained_with)):
        if mode is not None and mode not in conv_templates:
            raise OptionError(f"{origin} is {mode!r}; expected one of {', '.join(conv_templates)}")
        if mode is not None:
            return conv_templates[mode].copy()
    return template_of_name(model_name)


def with_image_tags(model: Any, text: str, count: int) -> str:
    """Return a question with ``count`` image tags before it, or in place of ``<image-placeholder>``."""
    tag = image_tag(model)
    if IMAGE_PLACEHOLDER in text:
        return text.replace(IMAGE_PLACEHOLDER, tag)
    return f"{tag}\n" * count + text


def image_tag(model: Any) -> str:
    """Return an image's tag in this model's prompts: ``<image>``, between marks where it was trained with them."""
    if getattr(model.config, "mm_use_im_start_end", False):
        return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return DEFAULT_IMAGE_TOKEN
