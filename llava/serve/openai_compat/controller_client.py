"""What a server in front of the controller asks of it: the models, how they are prompted, an answer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from llava.conversation import Conversation, conv_templates, template_of_name
from llava.serve.middleware.request_ids import HEADER
from llava.serve.openai_compat.errors import failure_in_stream
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import END, NO_WORKER, OK, WORKER_UNREACHABLE, Failure

log = logging.getLogger(__name__)

QUICK_S = 10.0  # for questions that need no model
REMEMBERED_S = 60.0  # how long a model's template is taken for granted


@dataclass
class ControllerClient:
    """``timeout_s``: for the next piece of an answer. Every method raises RequestFailure."""

    address: str
    client: httpx.AsyncClient
    timeout_s: float = 120.0
    _templates: dict[str, tuple[float, Conversation]] = field(default_factory=dict)

    async def models(self) -> list[str]:
        """Names of all models that some worker serves."""
        return (await self._ask("/list_models", {})).get("models", [])

    async def template(self, model: str) -> Conversation:
        """How a model wants to be prompted: as its worker says, else as its name does."""
        known = self._templates.get(model)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        worker = (await self._ask("/get_worker_address", {"model": model})).get("address")
        if not worker:
            raise self._nobody(model, await self.models())
        template = await self._template_of_worker(worker, model)
        self._templates[model] = (time.monotonic() + REMEMBERED_S, template)
        return template

    async def open(self, body: dict[str, Any], request_id: str) -> httpx.Response:
        """The reply to a request for an answer, still to be read, and to be closed by the caller."""
        timeout = httpx.Timeout(self.timeout_s, connect=QUICK_S)
        request = self.client.build_request(
            "POST",
            f"{self.address}/worker_generate_stream",
            content=json.dumps(body).encode(),  # escapes what no UTF-8 can carry; the worker says what it thinks of it
            headers={HEADER: request_id, "Content-Type": "application/json"},
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

    async def objects(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        """The objects of an answer; a failure among them is raised."""
        rest = b""
        try:
            async for data in response.aiter_bytes():
                *whole, rest = (rest + data).split(END)
                for part in whole:
                    said = json.loads(part)
                    if said.get("error_code") != OK:
                        raise failure_in_stream(said)
                    yield said
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self.client.post(f"{self.address}{path}", json=body, timeout=QUICK_S)
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        if reply.status_code != 200:
            raise self._refusal(reply, reply.content)
        said: dict[str, Any] = reply.json()
        return said

    async def _template_of_worker(self, worker: str, model: str) -> Conversation:
        try:
            mode = (await self.client.get(f"{worker}/ready", timeout=QUICK_S)).json().get("conv_mode")
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            log.warning("worker %s does not tell how to prompt %r (%s); its name decides", worker, model, error)
            mode = None
        return conv_templates[mode] if mode in conv_templates else template_of_name(model)

    def _nobody(self, model: str, models: list[str]) -> RequestFailure:
        if not models:
            return RequestFailure(503, "no_worker", "no worker is registered; start one, or try again later", NO_WORKER)
        message = f"no worker serves model {model!r}; there are: {', '.join(models)}"
        return RequestFailure(404, "no_such_model", message, NO_WORKER, param="model")

    def _refusal(self, response: httpx.Response, content: bytes) -> RequestFailure:
        """The controller's failure, or a worker's that it passed on."""
        try:
            said = Failure.model_validate(json.loads(content))
        except ValueError:
            return self._lost(None)
        after = response.headers.get("Retry-After", "")
        status, after_s = max(400, response.status_code), int(after) if after.isdecimal() else None
        return RequestFailure(status, said.reason, said.text, said.error_code, after_s)

    def _lost(self, error: httpx.HTTPError | None) -> RequestFailure:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"the controller at {self.address} cannot be reached; is it running?"
            return RequestFailure(503, "controller_unreachable", message, WORKER_UNREACHABLE)
        why = f" ({type(error).__name__})" if error else ""
        message = f"the controller at {self.address} broke off{why}; please ask again"
        return RequestFailure(502, "controller_lost", message, WORKER_UNREACHABLE)
