"""Client of a controller: lists models, and streams answers piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import httpx

from llava.conversation import conv_templates
from llava.errors import LlavaError
from llava.serve.protocol.framing import iter_chunks
from llava.serve.protocol.http_client import new_sync_client
from llava.serve.protocol.schemas import OK

SHORT_TIMEOUT_S = 30.0  # for requests that no model is needed for; the controller may ask workers for their status


class ServingError(LlavaError):
    """No answer came, with the reason for the user."""


class WebClient:
    """A client of the controller at ``address``. answer_timeout_s: longest wait for the next piece of an answer."""

    def __init__(self, address: str, answer_timeout_s: float = 120.0) -> None:
        self.address = address.rstrip("/")
        self._client = new_sync_client(answer_timeout_s)

    def models(self, refresh: bool = True) -> list[str]:
        """Return the names of the models that workers serve, sorted. Raises ``ServingError``.

        refresh: the controller asks all workers first, where it lets this machine ask for that.
        """
        if refresh:
            self._post("/refresh_all_workers", accepted=(403,))
        reply = self._post("/list_models")
        try:
            return sorted(str(name) for name in reply["models"])
        except (KeyError, TypeError) as error:
            raise self._no_controller(error) from error

    def worker_state(self, model: str) -> dict[str, Any]:
        """Return what a worker of ``model`` says at ``/ready``.

        ``conv_mode`` in it is the prompt template that the model was trained with: "" where the model names none, and
        None for an upstream worker, which does not say. Raises ``ServingError`` where no worker serves the model, or
        it does not answer: a guess could be the wrong template.
        """
        reply = self._post("/get_worker_address", {"model": model})
        worker = reply.get("address") if isinstance(reply, dict) else None
        if not worker:
            raise ServingError(f"no worker serves {model!r} now; start one, or choose another model")
        try:
            reply = self._client.get(f"{worker}/ready", timeout=SHORT_TIMEOUT_S)
            if reply.status_code == 404:
                return {"conv_mode": None}
            state = dict(reply.json())
            mode = str(state["conv_mode"] or "")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServingError(
                f"the worker of {model!r} does not say which prompt template its model needs "
                f"({type(error).__name__}); please ask again"
            ) from error
        if mode and mode not in conv_templates:
            raise ServingError(f"the worker of {model!r} names the template {mode!r}, which this demo does not know")
        return {**state, "conv_mode": mode}

    def answer(self, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Yield the chunks of an answer; closing the iterator stops the generation. Raises ``ServingError``."""
        try:
            with self._client.stream("POST", f"{self.address}/worker_generate_stream", json=dict(body)) as reply:
                for part in iter_chunks(reply.iter_bytes()):
                    if part.get("error_code") != OK:
                        raise ServingError(str(part.get("text")))
                    yield part
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise ServingError(f"the controller at {self.address} sent an invalid answer: {error}") from error

    def _post(self, path: str, body: Mapping[str, Any] | None = None, accepted: Sequence[int] = ()) -> Any:
        try:
            reply = self._client.post(self.address + path, json=dict(body or {}), timeout=SHORT_TIMEOUT_S)
            if reply.status_code not in accepted:
                reply.raise_for_status()
            return reply.json()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise self._no_controller(error) from error

    def _no_controller(self, error: Exception) -> ServingError:
        why = f"{type(error).__name__}: {error}"
        return ServingError(f"what answers at {self.address} is no controller ({why}); check --controller-url")

    def _unreachable(self, error: httpx.HTTPError) -> ServingError:
        why = str(error) or type(error).__name__
        return ServingError(
            f"the controller at {self.address} cannot be reached ({why}); start it with "
            "`python -m llava.serve.controller`, or name it with --controller-url"
        )
