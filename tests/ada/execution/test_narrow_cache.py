"""The cache of narrow layers: what it holds is bounded, cut once, and made anew when weights change."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch

from ada.execution import narrow_cache
from ada.execution.narrow_cache import NarrowCache
from ada.execution.weight_pool import PoolIsFull, WeightPool
from ada.scheduling.execution_plan import LayerPlan

ALL = (0, 1, 2, 3)
HALF, OTHER, QUARTER = LayerPlan((0, 1), (1, 2)), LayerPlan((1, 3), (2, 3)), LayerPlan((2,), (1,))


@pytest.fixture
def layer(make_decoder):
    return make_decoder().layers[3]


def nbytes(weights) -> int:
    return sum(p.weight.nbytes for p in (weights.qkv, weights.output, weights.gate_up, weights.down) if p is not None)


def test_entry_is_kept_until_a_weight_changes(layer) -> None:
    cache = NarrowCache(1 << 30)
    with torch.no_grad():
        first = cache.get(3, layer, HALF, 4)
        assert cache.get(3, layer, HALF, 4) is first
        layer.self_attn.o_proj.weight.add_(1)
        second = cache.get(3, layer, HALF, 4)
    assert second is not first
    assert torch.equal(second.output.weight, cut_columns(layer.self_attn.o_proj.weight, HALF.heads))


def cut_columns(weight: torch.Tensor, groups: tuple[int, ...]) -> torch.Tensor:
    """Independent of the product: columns of equal groups, by a mask."""
    size = weight.shape[1] // 4
    return weight[:, [column for column in range(weight.shape[1]) if column // size in groups]]


@torch.no_grad()
def test_bytes_are_those_of_the_kept_weights(layer) -> None:
    cache = NarrowCache(1 << 30)
    held = [cache.get(3, layer, plan, 4) for plan in (HALF, QUARTER)]
    assert cache.bytes == sum(map(nbytes, held))
    dense_heads = cache.get(3, layer, LayerPlan(ALL, (0,)), 4)
    assert dense_heads.qkv is cache.dense(3, layer).qkv, "a block that runs dense is not copied"


@torch.no_grad()
def test_layers_that_answers_hold_count_and_are_not_taken_from_them(layer) -> None:
    cache = NarrowCache(1 << 30)
    running = cache.get(3, layer, HALF, 4)
    before = running.qkv.weight.clone()
    cache.max_bytes = cache.bytes
    assert cache.get(3, layer, OTHER, 4) is None, "all of the memory is held"
    assert torch.equal(running.qkv.weight, before) and cache.bytes <= cache.max_bytes
    del running
    gc.collect()
    assert cache.get(3, layer, OTHER, 4) is not None and cache.bytes <= cache.max_bytes


@torch.no_grad()
def test_layer_used_longest_ago_is_evicted_first(layer) -> None:
    cache = NarrowCache(1 << 30)
    cache.max_bytes = 2 * nbytes(cache.get(3, layer, HALF, 4))
    other = weakref.ref(cache.get(3, layer, OTHER, 4))
    half = weakref.ref(cache.get(3, layer, HALF, 4))
    assert cache.get(3, layer, LayerPlan((0, 3), (1, 3)), 4) is not None
    assert other() is None and half() is not None and cache.bytes <= cache.max_bytes


@torch.no_grad()
def test_threads_that_want_one_plan_cut_it_once(layer, monkeypatch) -> None:
    cache, cuts, first = NarrowCache(1 << 30), [], threading.Event()
    original = narrow_cache.cut

    def slow_cut(*arguments, **keywords):
        cuts.append(1)
        first.wait(0.2)  # the others come in the meantime
        return original(*arguments, **keywords)

    monkeypatch.setattr(narrow_cache, "cut", slow_cut)
    found = []

    def work() -> None:
        with torch.no_grad():
            found.append(cache.get(3, layer, HALF, 4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cuts) == 1 and len({id(weights) for weights in found}) == 1


def test_cut_is_differentiable_where_gradients_are_wanted(layer) -> None:
    cache = NarrowCache(1 << 30)
    cache.get(3, layer, HALF, 4).qkv.weight.sum().backward()
    assert layer.self_attn.k_proj.weight.grad.sum() > 0 and cache.bytes == 0


def test_copy_is_empty(layer) -> None:
    cache = NarrowCache(1 << 20)
    with torch.no_grad():
        cache.get(3, layer, HALF, 4)
    copied = copy.deepcopy(cache)
    assert copied.bytes == 0 and copied.max_bytes == 1 << 20


@torch.no_grad()
def test_clear_releases_what_nothing_holds(layer) -> None:
    cache = NarrowCache(1 << 30)
    cache.get(3, layer, HALF, 4)
    cache.clear()
    gc.collect()
    cache.clear()
    assert cache.bytes == 0


@torch.no_grad()
def test_default_limit_is_taken_once_from_what_is_free_as_the_first_layer_is_cut(layer, monkeypatch) -> None:
    monkeypatch.setattr(narrow_cache, "free_bytes", lambda device: asked.append(device) or 40_000)
    asked: list[torch.device] = []
    cache = NarrowCache(tunable_bytes=lambda: 1 << 30)
    assert cache.max_bytes is None and not asked, "the weights may not be on their device yet"
    held = [cache.get(3, layer, plan, 4) for plan in (QUARTER, HALF, OTHER)]
    assert cache.max_bytes == 10_000 >= cache.bytes and asked == [torch.device("cpu")]
    assert None in held and copy.deepcopy(cache).max_bytes == 10_000


@pytest.mark.parametrize("gradients", [False, True])
def test_limit_of_zero_cuts_nothing(layer, gradients) -> None:
    cache = NarrowCache(0)
    with torch.set_grad_enabled(gradients):
        assert cache.get(3, layer, HALF, 4) is None and cache.bytes == 0
    cache.max_bytes = 1 << 30
    with torch.no_grad():
        assert cache.get(3, layer, HALF, 4) is not None


def test_pool_that_refuses_keeps_count_of_the_buffer_that_it_tried() -> None:
    pool, like = WeightPool(100), torch.empty(0, dtype=torch.int8)
    held = pool.take((1, 60), 60, like)
    free = pool.take((1, 20), 45, like)
    del free
    with pytest.raises(PoolIsFull):
        pool.take((1, 45), 45, like)
    assert pool.bytes == 80
    pool.clear()
    assert pool.bytes == held.nbytes == 60
