"""A replica of a model on Ray Serve: a worker's service without HTTP, what it offers, and whether it lives."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ada.latency.latency_model import Workload
from ada.latency.measure import warm_up
from ada.latency.ttft_predictor import TTFTPredictor
from ada.reuse.known_images import KnownImages
from ada.serve.replica_choice import Ask, key_of, offer_of
from llava.serve.model_worker import check_arguments, open_service, parse_arguments
from llava.serve.protocol.errors import invalid_body
from llava.serve.worker.app import ready_state, request_model
from llava.serve.worker.response_stream import failure_of

LAST = 32  # requests that are remembered
EXPECTED = Workload(128, 0, 1)  # before any prompt has come


class Replica:
    """A worker. flags: those of ``python -m llava.serve.model_worker``."""

    def __init__(self, flags: Sequence[str]) -> None:
        args = parse_arguments([*flags])
        check_arguments(args)
        self.service = open_service(args)
        options = self.service.loaded.options
        self.predictor: TTFTPredictor | None = options.get("ttft_predictor")
        if self.predictor is not None:
            warm_up(self.service.loaded.model)  # type: ignore[arg-type]  # only adaptive models have a predictor
        self._images = KnownImages(options.get("reuse"))
        self._prompts = deque([(EXPECTED, 0, "")], maxlen=LAST)  # its workload, characters and key
        self.service.engine.start()

    async def generate(self, fields: Mapping[str, Any], request_id: str, ask: Ask) -> AsyncGenerator[Any]:
        """Answer a ``GenerationBody``: yield status, headers and content of the reply's head, then an answer's chunks.

        A promise counts from ``ask.arrived``, as the machines' clocks agree.
        """
        try:
            body = request_model().model_validate(fields)
            waited_s = max(0.0, time.time() - ask.arrived)
            stream = await self.service.accept(body, request_id, time.perf_counter() - waited_s)
        except Exception as error:  # noqa: BLE001 - every refusal is a reply
            failure = invalid_body(error, fields) if isinstance(error, ValidationError) else failure_of(error)
            reply = failure.response(request_id)
            yield reply.status_code, dict(reply.headers), reply.body
            return
        try:
            yield 200, {}, b""
            request = stream.request
            prompt = Workload(request.generation.prompt_tokens, 0, len(ask.images))
            self._prompts.append((prompt, len(ask.prompt), key_of(*ask.images, ask.prompt)))
            self._images.add(ask.images, request.generation.images.pixels)
            async for chunk in stream.chunks(self.service.policy):
                yield chunk
        finally:
            await self.service.close(stream)

    async def state(self) -> dict[str, Any]:
        """Return what a worker's ``/ready`` says."""
        return await ready_state(self.service)

    def check_health(self) -> None:
        """Raise RuntimeError where the replica is to be replaced."""
        if (failure := self.service.failure()) is not None:
            raise RuntimeError(failure)

    def record_routing_stats(self) -> dict[str, bytes]:
        """Return what the router reads: an offer by the model's name, where this device is calibrated and ready."""
        if self.predictor is None or self.service.not_ready_reason() is not None:
            return {}
        prompts = tuple((length, key) for _, length, key in self._prompts)
        longest = max((prompt for prompt, *_ in self._prompts), key=lambda prompt: prompt.num_tokens)
        offer = offer_of(self.predictor, longest, self.service.queue.load())
        offer = replace(offer, images=self._images.keys(), prompts=prompts)
        return {self.service.loaded.name: pickle.dumps(offer)}

    def __del__(self) -> None:
        """End the engine once what was accepted is answered; Ray calls it, too, as it unloads a model."""
        if hasattr(self, "service"):
            self.service.drain()
