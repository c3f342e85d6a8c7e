"""What a replica offers to a prompt, by its predictor and by the prompts that it has read last."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from ada.latency.latency_model import Workload
from ada.latency.plan_times import plan_times
from ada.latency.ttft_predictor import TTFTPredictor
from ada.reuse.cache import ReuseCache
from ada.reuse.known_images import KnownImages
from ada.serve.replica_choice import Ask, Offer, key_of
from llava.serve.engine.request import GenerationRequest
from llava.serve.engine.request_queue import Load

LAST = 32  # requests that are remembered
EXPECTED = Workload(128, 0, 1)  # before any prompt has come
SHORTEST = Workload(1, 0, 0)
NO_LIMIT = 10**6  # tokens


@dataclass
class LastPrompts:
    """The prompts that a replica has read last. reuse: what it keeps of them, None where that is nothing."""

    reuse: ReuseCache | None
    _images: KnownImages = field(init=False)
    _prompts: deque[tuple[Workload, int, str]] = field(init=False)  # workload, characters and key

    def __post_init__(self) -> None:
        self._images = KnownImages(self.reuse)
        self._prompts = deque([(EXPECTED, 0, "")], maxlen=LAST)

    def add(self, request: GenerationRequest, ask: Ask) -> None:
        """Take note of a request that was accepted."""
        prompt = Workload(request.prompt_tokens, 0, request.fields["num_crops"])
        self._prompts.append((prompt, len(ask.prompt), key_of(*ask.images, ask.prompt)))
        self._images.add(ask.images, request.images.pixels)

    def offer(self, predictor: TTFTPredictor, load: Load) -> Offer:
        """Return the offer to a prompt that is as the longest of them."""
        longest = max((prompt for prompt, *_ in self._prompts), key=lambda prompt: prompt.num_tokens)
        prompts = tuple((length, key) for _, length, key in self._prompts)
        return replace(offer_of(predictor, longest, load), images=self._images.keys(), prompts=prompts)


def offer_of(predictor: TTFTPredictor, prompt: Workload, load: Load) -> Offer:
    """Return what a worker under a load offers to a prompt, whose units do not count."""
    tokens, pace = predictor.planned_tokens(NO_LIMIT), predictor.typical_factor
    plans = plan_times(predictor, prompt, max(1, load.running), tokens - 1)
    reading = predictor.expected(replace(prompt, num_units=predictor.units.tunable))
    image = predictor.expected(replace(prompt, num_images=prompt.num_images + 1))
    known = predictor.expected(replace(prompt, known_tokens=prompt.num_tokens - 1))
    return Offer(
        plans,
        plan_times(predictor, SHORTEST, 1, 0),
        tokens,
        turn_ms=pace * reading.ttft_ms + plans[0].token_ms,
        image_ms=pace * (image.to_plan_ms - reading.to_plan_ms),
        prompt_ms=pace * (reading.to_plan_ms - known.to_plan_ms),
    )
