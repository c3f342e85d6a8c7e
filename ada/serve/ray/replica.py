"""A replica of a model on Ray Serve: a worker's service without HTTP, what it offers, and whether it lives."""

from __future__ import annotations

import pickle
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ada.latency.ttft_predictor import TTFTPredictor
from ada.serve.entrance import Entrance
from ada.serve.replica_choice import Ask
from ada.serve.replica_offer import LastPrompts
from llava.serve.model_worker import check_arguments, open_service, parse_arguments
from llava.serve.worker.app import ready_state, request_model
from llava.serve.worker.response_stream import recorded_failure


class Replica:
    """A worker. flags: those of ``python -m llava.serve.model_worker``."""

    def __init__(self, flags: Sequence[str]) -> None:
        args = parse_arguments([*flags])
        check_arguments(args)
        self.service = open_service(args)
        options = self.service.loaded.options
        self.predictor: TTFTPredictor | None = options.get("ttft_predictor")
        self.prompts = LastPrompts(options.get("reuse"))
        self.entrance = Entrance()
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
            reply = recorded_failure(error, request_id, fields).response(request_id)
            yield reply.status_code, dict(reply.headers), reply.body
            return
        try:
            yield 200, {}, b""
            self.prompts.add(stream.request.generation, ask)
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
        offer = self.prompts.offer(self.predictor, self.service.queue.load())
        return {self.service.loaded.name: pickle.dumps(offer)}

    def __del__(self) -> None:
        """End the engine once what has entered is answered; Ray calls it, too, as it unloads a model."""
        if hasattr(self, "service"):
            self.entrance.wait()
            self.service.drain()
