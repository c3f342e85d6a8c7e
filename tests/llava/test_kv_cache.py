"""KV caches of rows that are joined into a batch's cache and taken out again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from llava.kv_cache import RowCache, join_rows, take_row

HEADS = st.one_of(st.none(), st.sets(st.integers(0, 3)).map(lambda kept: tuple(sorted(kept))))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_take_row_after_join_rows_returns_the_same_row(data) -> None:
    """Whatever each row holds, and however long it is; a batch's own heads are one row's only where all agree."""
    count = data.draw(st.integers(1, 4))
    heads = [[None, *data.draw(st.lists(HEADS, min_size=2, max_size=2))] for _ in range(count)]
    rows = []
    for own in heads:
        length = data.draw(st.integers(1, 5))
        cache = DynamicCache()
        for layer, kept in enumerate(own):
            if kept != ():
                shape = (1, 4 if kept is None else len(kept), length, 2)
                cache.update(torch.randn(shape), torch.randn(shape), layer)
        rows.append(take_row(cache, 0, length, own, own))
    held = [layer[0] if len(set(layer)) == 1 else None for layer in zip(*heads, strict=True)]
    batch = join_rows(rows, held, 4)
    for index, row in enumerate(rows):
        again = take_row(batch, index, row.length, held, row.heads)
        for mine, other in zip(row.layers, again.layers, strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def test_layers_on_several_devices_are_joined_where_their_rows_are() -> None:
    """As a device map lays them. A second device is the meta device, to and from which nothing can be copied."""

    def states(device: str, heads: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(heads, 3, 4, device=device), torch.ones(heads, 3, 4, device=device)

    one = RowCache([states("cpu"), states("cpu"), None, None], [None, None, (), ()], 3)
    other = RowCache([states("cpu"), None, states("meta", 1), None], [None, (), (1,), ()], 3)
    joined = join_rows([one, other], [None, None, None, None], 2)
    assert [layer.keys.device.type for layer in joined.layers] == ["cpu", "cpu", "meta", "meta"]
    assert [layer.values.device.type for layer in joined.layers] == ["cpu", "cpu", "meta", "meta"]
    assert all(layer.keys.shape == (2, 2, 3, 4) for layer in joined.layers)
