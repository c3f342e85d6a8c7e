"""The order of samples: each once, alike ones together, and the same again in a resumed run."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from llava.train.data.samplers import (
    EpochCallback,
    ModalityGroupedSampler,
    grouped_by_length,
    grouped_by_modality,
)

batches = st.integers(1, 7)
seeds = st.integers(0, 1000)
words = st.lists(st.integers(1, 40), max_size=60)
mixed = st.lists(st.integers(-40, 40).filter(bool), max_size=60)
quick = settings(deadline=None, max_examples=100)


def pieces(order, batch):
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def generator(seed):
    return torch.Generator().manual_seed(seed)


@quick
@given(words, batches, seeds)
def test_by_length(lengths, batch, seed):
    """Up to 50 batches are sorted together: no two whole batches' lengths overlap, then."""
    order = grouped_by_length(lengths, batch, generator(seed))
    assert sorted(order) == list(range(len(lengths)))
    if len(lengths) > 50 * batch:
        return
    full = [[lengths[i] for i in piece] for piece in pieces(order, batch) if len(piece) == batch]
    full.sort(key=lambda piece: (min(piece), max(piece)))
    assert all(max(a) <= min(b) for a, b in pairwise(full))


@quick
@given(mixed, batches, seeds)
def test_by_modality(lengths, batch, seed):
    order = grouped_by_modality(lengths, batch, generator(seed))
    assert sorted(order) == list(range(len(lengths)))
    with_image = sum(length > 0 for length in lengths)
    full = with_image // batch + (len(lengths) - with_image) // batch
    for piece in pieces(order, batch)[:full]:
        assert len({lengths[index] > 0 for index in piece}) == 1


def test_long_files_are_shuffled_before_they_are_sorted():
    order = grouped_by_length([1] * 1000, 2, generator(0))
    assert order[:100] != list(range(100))
    assert max(order[:20]) > 500


def test_orders_differ_by_epoch_and_come_again():
    lengths = [(-1) ** n * (n + 1) for n in range(40)]
    sampler = ModalityGroupedSampler(4, lengths, seed=3)
    assert len(sampler) == 40
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first == again == list(sampler)
    assert first != second
    assert first != list(ModalityGroupedSampler(4, lengths, seed=4))
    assert all(len({lengths[i] > 0 for i in piece}) == 1 for piece in pieces(first, 4))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_run_resumed_within_an_epoch_gets_the_rest_of_its_order(processes, epoch):
    """Of the second of several processes, in the loaders that accelerate makes for it."""
    lengths = [(-1) ** n * (n + 1) for n in range(40)]

    def sampler():
        return ModalityGroupedSampler(2 * processes, lengths, seed=3)

    batches = BatchSampler(sampler(), 2, drop_last=False)
    if processes > 1:
        batches = BatchSamplerShard(batches, num_processes=processes, process_index=1)
    loader = DataLoaderShard(range(40), batch_sampler=batches)
    EpochCallback().on_epoch_begin(None, SimpleNamespace(epoch=epoch + 0.3), None, train_dataloader=loader)
    resumed = skip_first_batches(loader, 3)
    resumed.set_epoch(epoch)  # as the trainer does, which does not reach the sampler in several processes
    expected = sampler()
    expected.set_epoch(epoch)
    mine = pieces(list(expected), 2)[processes - 1 :: processes]
    assert [batch.tolist() for batch in resumed] == mine[3:]
