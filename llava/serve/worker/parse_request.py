"""Checks a request's body and turns it into a request that the engine can answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import OptionError
from llava.generation import SamplingParams, image_tag
from llava.mm_utils import tokenizer_image_token
from llava.model.loaded_model import LoadedModel
from llava.model.sequence_length import check_prompt_length, prompt_length
from llava.protocols import ImageSizes
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import GenerationRequest
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import OTHER_TEMPLATE, GenerationBody, is_sampled
from llava.serve.worker.known_pixels import KnownPixels
from llava.serve.worker.request_images import count_crops, read_images
from llava.serve.worker.request_limits import MAX_STOP_CHARACTERS, MAX_STOPS, RequestLimits

NUM_SEEDS = 2**63


def parse_request(
    body: GenerationBody,
    loaded: LoadedModel,
    limits: RequestLimits,
    policy: ServingPolicy,
    is_late: Callable[[], bool] = lambda: False,
    known: KnownPixels | None = None,
) -> GenerationRequest:
    """Check a request and turn its images into pixels. Takes a while, so call it outside the server's event loop.

    is_late: asked before each image whether nobody waits any more; known: images that were read before. Raises
    TimeoutError where it says so, and a ``LlavaError`` or a RequestFailure that says what is wrong.
    """
    if body.model and body.model != loaded.name:
        raise RequestFailure(
            404, "no_such_model", f"this worker serves model {loaded.name!r}, not {body.model[:100]!r}"
        )
    check_template(body.conv_mode, loaded)
    if len(body.prompt) > limits.max_prompt_characters:
        raise OptionError(
            f"the prompt has {len(body.prompt):,} characters; the maximum is {limits.max_prompt_characters:,}"
        )
    stops = read_stops(body.stop)
    fields = {**body.model_dump(exclude={"prompt", "images"}), "num_images": len(body.images or ())}
    fields.update(policy.check(fields))
    images = read_images(body, loaded, limits, is_late, known)
    fields["num_crops"] = count_crops(images)
    prompt = body.prompt.replace(DEFAULT_IMAGE_TOKEN, image_tag(loaded.model))
    prompt_tokens = count_tokens(prompt, images.sizes, loaded)
    check_prompt_tokens(prompt_tokens, loaded, limits)
    max_new_tokens = min(body.max_new_tokens, limits.max_output_tokens, loaded.context_length - prompt_tokens)
    sampling = read_sampling(body, max_new_tokens)
    promise = policy.promise(fields, prompt_tokens, max_new_tokens)
    return GenerationRequest(prompt, images, sampling, stops, fields, prompt_tokens, echo=body.prompt, promise=promise)


def check_template(conv_mode: str | None, loaded: LoadedModel) -> None:
    """Raise RequestFailure for a prompt of another template than the model's; None: the client does not say which."""
    if conv_mode is not None and conv_mode != (loaded.conv_mode or ""):
        message = f"the prompt is rendered by the template {conv_mode!r}; this worker's is {loaded.conv_mode or ''!r}"
        raise RequestFailure(409, OTHER_TEMPLATE, message)


def check_prompt_tokens(prompt_tokens: int, loaded: LoadedModel, limits: RequestLimits) -> None:
    """Raise OptionError for a prompt that is longer than the limits or leaves no position for an answer."""
    longest = loaded.context_length - 1
    check_prompt_length(prompt_tokens, min(limits.max_prompt_tokens or longest, longest))


def read_sampling(body: GenerationBody, max_new_tokens: int) -> SamplingParams:
    """Return how tokens are chosen. Temperatures near 0, and a ``top_p`` of 0, are greedy.

    Draws always have a seed: one that the client gave, or a random one, so that all engines draw alike and no request
    disturbs another's. Raises OptionError where the answer cannot have ``min_tokens``.
    """
    sampling = SamplingParams(
        max_new_tokens=max_new_tokens,
        top_k=max(body.top_k, 0) if body.top_k is not None else None,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
    )
    if is_sampled(body.temperature, body.top_p):
        seed = secrets.randbelow(NUM_SEEDS) if body.seed is None else body.seed
        sampling = replace(sampling, temperature=body.temperature, top_p=body.top_p, seed=seed)
    sampling.check()
    return sampling


def read_stops(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the stop texts without empty ones. Raises OptionError for too many, or too long ones."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS or any(len(text) > MAX_STOP_CHARACTERS for text in stops):
        raise OptionError(
            f"stop has {len(stops)} texts; expected at most {MAX_STOPS} of at most {MAX_STOP_CHARACTERS} characters"
        )
    return tuple(text for text in stops if text)


def count_tokens(prompt: str, sizes: ImageSizes, loaded: LoadedModel) -> int:
    """Return the positions that a prompt takes in the sequence, with its images."""
    return prompt_length(tokenizer_image_token(prompt, loaded.tokenizer), sizes, loaded.model)
