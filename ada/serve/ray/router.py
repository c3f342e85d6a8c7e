"""Ray Serve's request router of a model's replicas, which chooses by what each of them offers."""

from __future__ import annotations

import pickle
import time
from typing import Any

from ray.serve.request_router import MultiplexMixin, PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ada.serve.replica_choice import Offer, Turns, choose
from llava.serve.protocol.errors import RequestFailure


class PromiseRouter(MultiplexMixin, RequestRouter):  # type: ignore[misc]
    """Sends a request to the replica that gives it most within its promise; refuses it where none can keep that."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._turns = Turns()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas to try, rank after rank; of a rank Ray takes the one that has the fewest requests."""
        if pending_request is None:
            return [candidate_replicas]
        ask, now, model = pending_request.kwargs.get("ask"), time.time(), pending_request.metadata.multiplexed_model_id
        pending_request.routing_context.should_backoff = True  # before the next try, where all are full
        if ask is None:  # a question about the model itself
            return self._by_models(candidate_replicas, model)
        offers = [self._offered(replica, ask.model, now) for replica in candidate_replicas]
        silent = [replica for replica, offer in zip(candidate_replicas, offers, strict=True) if offer is None]
        try:
            return [[candidate_replicas[n]] for n in choose(ask, offers, now)] + self._by_models(silent, model)
        except RequestFailure as refusal:
            pending_request.future.set_exception(refusal)
            self._remove_pending_request_from_indices(pending_request)  # as Ray does with one that has its replica
            return [candidate_replicas]  # Ray looks whether the request is done as it gets some

    def _by_models(self, replicas: list[RunningReplica], model: str) -> list[list[RunningReplica]]:
        """Those that have loaded the model, then those with the fewest models; all, where they serve one."""
        return [rank for rank in self.rank_replicas_via_multiplex(replicas, model) if rank]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Take note of a request that is sent to a replica."""
        super().on_send_request(replica_id)
        offers = getattr(self.curr_replicas.get(replica_id), "routing_stats", None) or {}
        for offer in [*offers.values()][:1]:  # of several it is not said which one is asked
            self._turns.sent(replica_id, pickle.loads(offer), time.time())

    def _offered(self, replica: RunningReplica, model: str, now: float) -> tuple[Offer, float] | None:
        """What a replica offers for a model, and the wait there; None where it has said nothing of it yet."""
        if model not in (replica.routing_stats or {}):
            return None
        return pickle.loads(replica.routing_stats[model]), self._turns.wait_ms(replica.replica_id, now)
