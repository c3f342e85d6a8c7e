"""A loaded checkpoint that answers batches: the settings that it is loaded with."""

from __future__ import annotations

import pytest

from ada.eval.answering.batches import Answerer


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 500_000_000), (0, 0), (None, None)])
def test_limit_of_narrow_layers_reaches_the_model(adaptive_checkpoint, limit, expected) -> None:
    answerer = Answerer(adaptive_checkpoint, device="cpu", narrow_cache_gb=limit)
    assert answerer.model.narrow_cache.max_bytes == expected
