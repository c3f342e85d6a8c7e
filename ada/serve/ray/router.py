"""Ray Serve's request router of a model's replicas, which chooses by what each of them offers."""

from __future__ import annotations

import pickle
import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ada.serve.replica_choice import Offer, Turns, choose
from llava.serve.protocol.errors import RequestFailure


class PromiseRouter(RequestRouter):  # type: ignore[misc]
    """Sends a request to the replica that gives it most within its promise; refuses it where none can keep that."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._turns = Turns()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas to try, rank after rank; of a rank Ray takes the one that has the fewest requests."""
        if pending_request is None or "ask" not in pending_request.kwargs:  # a question about the replica itself
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # before the next try, where all are full
        ask, now = pending_request.kwargs["ask"], time.time()
        offers = [self._offered(replica, ask.model, now) for replica in candidate_replicas]
        try:
            return [[candidate_replicas[n] for n in rank] for rank in choose(ask, offers, now)]
        except RequestFailure as refusal:
            pending_request.future.set_exception(refusal)
            self._remove_pending_request_from_indices(pending_request)  # as Ray does with one that has its replica
            return [candidate_replicas]  # Ray looks whether the request is done as it gets some

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Take note of a request that is sent to a replica."""
        super().on_send_request(replica_id)
        replica, now = self.curr_replicas.get(replica_id), time.time()
        for model in [*(replica.routing_stats if replica else {})][:1]:  # of several it is not said which one is asked
            if (offered := self._offered(replica, model, now)) is not None:
                self._turns.sent(replica_id, offered[0], now)

    def _offered(self, replica: RunningReplica, model: str, now: float) -> tuple[Offer, float] | None:
        """What a replica offers for a model, and the wait there; None where it has said nothing of it yet."""
        if model not in (replica.routing_stats or {}):
            return None
        return pickle.loads(replica.routing_stats[model]), self._turns.wait_ms(replica.replica_id, now)
