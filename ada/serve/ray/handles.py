"""The OpenAI-style API's backend on Ray: a handle of each model's replicas in a controller's stead."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.datastructures import Headers

from ada.serve.replica_choice import Ask, WayBack
from llava.serve.middleware.request_end import current_end
from llava.serve.openai_compat.templates import NamedTemplate, Templates, named_template
from llava.serve.protocol.errors import RequestFailure, failure_in_stream, failure_of_reply, no_worker
from llava.serve.protocol.framing import parse_chunk
from llava.serve.protocol.schemas import OK, WORKER_UNREACHABLE

TRIES, LOST = 3, "worker_lost"  # tries of a request whose replica is lost before its answer has begun


@dataclass(frozen=True)
class OpenAnswer:
    """An answer that a replica has begun."""

    pieces: DeploymentResponseGenerator[Any]
    ask: Ask
    way_back: WayBack

    async def aclose(self) -> None:
        """Stop the answer where it has not ended."""
        self.pieces.cancel()


@dataclass
class HandleBackend:
    """Asks Ray for answers. handles: by the model's name. timeout_s: maximum wait for the next piece of an answer."""

    handles: Mapping[str, DeploymentHandle[Any]]
    timeout_s: float
    templates: Templates = field(init=False)
    _ways_back: defaultdict[str, WayBack] = field(default_factory=lambda: defaultdict(WayBack), init=False)

    def __post_init__(self) -> None:
        self.templates = Templates(self._ask_template)

    async def models(self) -> list[str]:
        """Return the names of all models."""
        return [*self.handles]

    async def open(self, body: dict[str, Any], request_id: str) -> OpenAnswer:
        """Ask for an answer. Raises RequestFailure: the router's, the replica's, or where all tries are lost."""
        generate = self._handle(body["model"]).options(stream=True, method_name="generate")
        way_back, left = self._ways_back[body["model"]], TRIES
        ask = Ask.of(body, current_end().came - way_back.seconds(time.time()))  # covers reading it, and the way back
        while True:
            answer, left = OpenAnswer(generate.remote(body, request_id, ask=ask), ask, way_back), left - 1
            try:
                status, headers, content = await self._awaited(anext(answer.pieces))
            except RequestFailure as failure:
                if failure.reason == LOST and left:
                    continue
                if failure.status == 504:
                    await answer.aclose()
                raise
            if status != 200:
                raise failure_of_reply(status, Headers(headers), content)
            return answer

    async def chunks(self, reply: OpenAnswer) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of an answer; raise the failure that one of them reports, or that its replica is lost."""
        first: float | None = None
        while (piece := await self._awaited(anext(reply.pieces, None))) is not None:
            first = first or time.time()
            chunk = parse_chunk(piece.rstrip(b"\0"))
            if chunk["error_code"] != OK:
                raise failure_in_stream(chunk)
            if "usage" in chunk:  # the last one, which under load comes later after its count
                counted = (first, "time_to_first_token_ms"), (time.time(), "total_ms")
                delay_s = max(came - reply.ask.arrived - chunk[name] / 1000 for came, name in counted)
                reply.way_back.observe(delay_s, time.time())
            yield chunk

    async def close(self) -> None:
        """Do nothing: the handles are Ray's."""

    def _handle(self, model: str) -> DeploymentHandle[Any]:
        if model not in self.handles:
            raise no_worker(model, [*self.handles])
        return self.handles[model].options(multiplexed_model_id=model)

    async def _ask_template(self, model: str) -> NamedTemplate:
        state = await self._awaited(self._handle(model).state.remote())
        return named_template(state["conv_mode"] or "", model)

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        """Wait for a result of Ray's. Raises RequestFailure where there is none."""
        try:
            return await asyncio.wait_for(result, self.timeout_s)
        except TimeoutError as error:
            raise RequestFailure(504, "timeout", f"the model did not respond in {self.timeout_s:g} s") from error
        except BackPressureError as error:
            raise RequestFailure(429, "queue_full", f"{error} Please ask again later", retry_after=1) from error
        except RayTaskError:  # a fault of our code
            raise
        except (RayError, RayServeException) as error:
            message = f"the model's replica was lost ({type(error).__name__}); please ask again"
            raise RequestFailure(502, LOST, message, WORKER_UNREACHABLE) from error
