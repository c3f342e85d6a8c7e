"""The application's settings, without a cluster."""

from __future__ import annotations

import pytest

pytest.importorskip("ray.serve", exc_type=ImportError)
from ada.serve.ray.app import Settings, app


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("length", [0, 1, 32])
def test_every_queue_length_that_a_worker_takes_is_taken(length, shared) -> None:
    """Ray's deployments take no queue of 0."""
    flags = f"--model-path a/tiny --max-queue-length {length}"
    assert app(Settings(workers=flags, models_per_replica=shared)) is not None
