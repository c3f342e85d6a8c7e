"""A replica that answers for several models, each loaded as it is asked for: Ray Serve's multiplexing."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

from ray import serve

from ada.serve.ray.replica import Replica
from ada.serve.replica_choice import Ask


class SharedReplica:
    """Several workers, of which ``at_once`` are loaded. flags: of each model's, by its name.

    The one that was asked for longest ago is unloaded for another, which is loaded once its answers have ended.
    """

    def __init__(self, flags: Mapping[str, Sequence[str]], at_once: int) -> None:
        self._flags = flags
        self._loaded = WeakValueDictionary[str, Replica]()  # Ray holds them, and lets go of them
        self._loading: dict[str, asyncio.Task[Replica]] = {}  # which go on where the first to ask has left

        @serve.multiplexed(max_num_models_per_replica=at_once)  # type: ignore[untyped-decorator]
        async def load(name: str) -> Replica:
            if name not in self._loading:
                self._loading[name] = asyncio.create_task(asyncio.to_thread(self._open, name))
                self._loading[name].add_done_callback(lambda _: self._loading.pop(name))
            return await asyncio.shield(self._loading[name])

        self._load = load

    def _open(self, name: str) -> Replica:
        all(one.service.engine.join(threading.TIMEOUT_MAX) for one in self._loaded.values() if one.service.queue.closed)
        gc.collect()  # what is unloaded refers to itself
        self._loaded[name] = replica = Replica(self._flags[name])
        return replica

    async def generate(self, fields: Mapping[str, Any], request_id: str, ask: Ask) -> AsyncGenerator[Any]:
        """Answer as ``Replica`` does, by the model that is asked for."""
        replica: Replica = await self._load(ask.model)
        async with aclosing(replica.generate(fields, request_id, ask)) as pieces:
            with replica.entrance:
                head = await anext(pieces)
            yield head
            async for piece in pieces:
                yield piece

    async def state(self) -> dict[str, Any]:
        """Return what the worker's ``/ready`` says of the model that is asked for."""
        return await Replica.state(await self._load(serve.get_multiplexed_model_id()))

    def check_health(self) -> None:
        """Raise RuntimeError where one of the loaded models' engines has died."""
        for replica in self._loaded.values():
            replica.check_health()

    def record_routing_stats(self) -> dict[str, bytes]:
        """Return what the router reads: an offer for each loaded model."""
        return {name: offer for one in self._loaded.values() for name, offer in one.record_routing_stats().items()}
