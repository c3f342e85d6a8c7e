"""Heartbeat of a worker: reports to the controller that it lives, its queue length, and that it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import anyio
import httpx

from llava.serve.middleware import registration_token
from llava.serve.protocol.http_client import new_client
from llava.serve.protocol.schemas import WorkerStatus

log = logging.getLogger(__name__)

RETRY_S = 5.0  # pause after a beat that failed, where the interval is longer
MIN_PAUSE_S = 0.1  # between two beats, however many requests come and go
TIMEOUT_S = 5.0


class HeartBeat:
    """Registers a worker with the controller and sends heartbeats until ``leave``.

    A context manager, entered in the event loop that it runs in. Beats come every ``interval_s`` seconds, and soon
    after ``nudge``. A controller that has forgotten the worker gets it registered again; one that cannot be reached is
    tried again without end.

    controller: the controller's URL. address: URL under which others reach the worker. status: called for the worker's
    current status. token: secret that the controller expects.
    """

    def __init__(
        self,
        controller: str,
        address: str,
        status: Callable[[], WorkerStatus],
        interval_s: float,
        token: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.controller = controller.rstrip("/")
        self.address = address
        self.interval_s = interval_s
        self._status = status
        self._client = client or new_client()
        self._headers = registration_token.header(token)
        self._nudged = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.registered = False
        self._last_complaint = ""

    async def __aenter__(self) -> HeartBeat:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())
        return self

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that beats, once the context was entered; its failure is the worker's."""
        assert self._task is not None
        return self._task

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self._client.aclose()

    def nudge(self) -> None:
        """Send a beat soon, as the queue has changed. Thread-safe."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._nudged.set)

    async def leave(self) -> None:
        """Stop beating, and unregister from the controller."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if self.registered:
            await self._post("/unregister_worker", {"worker_name": self.address})
            self.registered = False

    async def _run(self) -> None:
        while True:
            succeeded = await self._beat() if self.registered else await self._register()
            await asyncio.sleep(MIN_PAUSE_S)
            pause = self.interval_s if succeeded else min(self.interval_s, RETRY_S)
            with anyio.move_on_after(max(0.0, pause - MIN_PAUSE_S)):
                await self._nudged.wait()
            self._nudged.clear()

    async def _register(self) -> bool:
        status = self._status().model_dump()
        body = {"worker_name": self.address, "check_heart_beat": True, "worker_status": status}
        self.registered = await self._post("/register_worker", body) is not None
        if self.registered:
            log.info("registered with %s as %s", self.controller, self.address)
        return self.registered

    async def _beat(self) -> bool:
        body = {"worker_name": self.address, "queue_length": self._status().queue_length}
        reply = await self._post("/receive_heart_beat", body)
        if reply is None:
            return False
        try:
            exist = bool(reply.json()["exist"])
        except (ValueError, KeyError, TypeError):
            log.error("%s does not answer as a controller does: %r", self.controller, reply.text[:200])
            return False
        if not exist:
            log.warning("the controller has forgotten this worker; registering again")
            self.registered = False
            return await self._register()
        return True

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response | None:
        """Return the controller's reply; None, with a line in the log, where it gives none or an error."""
        try:
            reply = await self._client.post(self.controller + path, json=body, headers=self._headers, timeout=TIMEOUT_S)
            reply.raise_for_status()
        except httpx.HTTPStatusError as error:
            self._complain(f"{path} is refused with {error.response.status_code}: {error.response.text[:300]!r}")
            return None
        except httpx.HTTPError as error:
            self._complain(f"cannot be reached ({type(error).__name__}: {error})")
            return None
        self._last_complaint = ""
        return reply

    def _complain(self, text: str) -> None:
        """Log a problem once, not at every beat."""
        if text != self._last_complaint:
            log.warning("controller %s: %s; trying again", self.controller, text)
        self._last_complaint = text
