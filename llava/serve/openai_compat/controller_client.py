"""Client that the OpenAI-style API asks the controller with: the models, their prompt templates, an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from llava.serve.middleware.request_ids import HEADER
from llava.serve.openai_compat.templates import NamedTemplate, Templates, template_of_reply, template_unknown
from llava.serve.protocol.errors import RequestFailure, failure_in_stream, failure_of_reply, no_worker
from llava.serve.protocol.framing import FrameReader, parse_chunk
from llava.serve.protocol.http_client import BodyOnce
from llava.serve.protocol.schemas import OK, WORKER_UNREACHABLE

SHORT_TIMEOUT_S = 10.0  # for requests that no model is needed for
MAX_DEPTH = 4  # controllers that are workers of one another


@dataclass
class ControllerClient:
    """Asks the controller at ``address``. Every method raises RequestFailure.

    ``timeout_s``: maximum wait for the next piece of an answer, in seconds.
    """

    address: str
    client: httpx.AsyncClient
    timeout_s: float = 120.0
    templates: Templates = field(init=False)

    def __post_init__(self) -> None:
        self.templates = Templates(self._ask_template)

    async def models(self) -> list[str]:
        """Return the names of all models that some worker serves."""
        models = (await self._post("/list_models", {})).get("models")
        if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
            raise self._no_controller("it lists no models")
        return models

    async def open(self, body: dict[str, Any], request_id: str) -> httpx.Response:
        """Send a request for an answer; return the reply, not read yet. The caller closes it."""
        timeout = httpx.Timeout(self.timeout_s, connect=SHORT_TIMEOUT_S)
        content = BodyOnce(json.dumps(body).encode())  # escapes what UTF-8 cannot encode; the worker refuses it
        request = self.client.build_request(
            "POST",
            f"{self.address}/worker_generate_stream",
            content=content,
            headers={**content.headers, HEADER: request_id},
            timeout=timeout,
        )
        try:
            response = await self.client.send(request, stream=True)
            if response.status_code == 200:
                return response
            try:
                raise self._refusal(response, await response.aread())
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    async def chunks(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of an answer; raise the failure that one of them reports."""
        reader = FrameReader()
        try:
            async for data in response.aiter_bytes():
                for frame in reader.feed(data):
                    chunk = parse_chunk(frame)
                    if chunk.get("error_code") != OK:
                        raise failure_in_stream(chunk)
                    if not isinstance(chunk.get("text"), str):
                        raise ValueError("a piece of the answer has no text")
                    yield chunk
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        except ValueError as error:
            message = f"the worker's answer is not what workers of this project send: {error}"
            raise RequestFailure(502, "worker_lost", message, WORKER_UNREACHABLE) from error

    async def close(self) -> None:
        """Close the connections to the controller."""
        await self.client.aclose()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self.client.post(f"{self.address}{path}", json=body, timeout=SHORT_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        if reply.status_code != 200:
            raise self._refusal(reply, reply.content)
        try:
            return parse_chunk(reply.content)
        except ValueError as error:
            raise self._no_controller("its reply is no JSON object") from error

    async def _ask_template(self, model: str) -> NamedTemplate:
        """Ask a worker of ``model`` for its template. Raises RequestFailure: no worker, or one that does not say."""
        worker = (await self._post("/get_worker_address", {"model": model})).get("address")
        if not worker:
            raise no_worker(model, await self.models())
        try:
            reply = await self.client.get(f"{worker}/ready", timeout=SHORT_TIMEOUT_S)
            for _ in range(MAX_DEPTH):
                if not (worker := await self._worker_below(worker, reply, model)):
                    break
                reply = await self.client.get(f"{worker}/ready", timeout=SHORT_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise template_unknown(model, f"its worker at {worker} does not answer ({type(error).__name__})") from error
        return template_of_reply(reply, model)

    async def _worker_below(self, address: str, reply: httpx.Response, model: str) -> str | None:
        """Return the model's worker where a controller answers at ``address``, by its ``/ready``; None for a worker."""
        try:
            state = parse_chunk(reply.content)
            if "models" not in state or "conv_mode" in state:
                return None
            found = await self.client.post(
                f"{address}/get_worker_address", json={"model": model}, timeout=SHORT_TIMEOUT_S
            )
            worker = parse_chunk(found.content).get("address")
        except ValueError:
            return None
        return worker if isinstance(worker, str) else None

    def _no_controller(self, why: str) -> RequestFailure:
        message = f"what answers at {self.address} is no controller: {why}; check --controller-address"
        return RequestFailure(502, "controller_unreachable", message, WORKER_UNREACHABLE)

    def _refusal(self, response: httpx.Response, content: bytes) -> RequestFailure:
        """Return the controller's failure, or a worker's that it passed on."""
        try:
            return failure_of_reply(response.status_code, response.headers, content)
        except ValueError:
            return self._lost(None)

    def _lost(self, error: httpx.HTTPError | None) -> RequestFailure:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"the controller at {self.address} cannot be reached; is it running?"
            return RequestFailure(503, "controller_unreachable", message, WORKER_UNREACHABLE)
        why = f" ({type(error).__name__})" if error else ""
        message = f"the connection to the controller at {self.address} was lost{why}; please ask again"
        return RequestFailure(502, "controller_lost", message, WORKER_UNREACHABLE)
