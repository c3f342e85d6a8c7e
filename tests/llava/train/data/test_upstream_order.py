"""Upstream's order of samples: hand-made cases, and what holds for every list of lengths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import DataError, OptionError
from llava.train.llava_trainer import (
    LengthGroupedSampler,
    get_length_grouped_indices,
    get_modality_length_grouped_indices,
    split_to_even_chunks,
)

sizes = st.integers(1, 4)
words = st.lists(st.integers(1, 40), max_size=50)
mixed = st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=50)
quick = settings(deadline=None, max_examples=100)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("indices", "lengths", "chunks"),
    [
        ([0, 1, 2, 3], [9, 5, 4, 1], [[0, 3], [1, 2]]),  # 9, 5 | 5 + 4 = 9 is full; 1 goes to the other
        ([0, 1, 2, 3], [9, 1, 1, 1], [[0, 3], [1, 2]]),  # 1 + 1 is full, although it is shorter than 9
        ([3, 2, 1, 0], [9, 5, 4, 1], [[3, 1], [2, 0]]),
        ([0, 1, 2, 3, 4], [9, 5, 4, 1, 1], [[0, 2, 4], [1, 3]]),  # uneven: every second one
        ([4, 7], {4: 1, 7: 1}, [[4], [7]]),
        ([], [], [[], []]),
    ],
)
def test_split_to_even_chunks_fills_the_shortest(indices, lengths, chunks):
    assert split_to_even_chunks(indices, lengths, 2) == chunks


@quick
@given(words, sizes, sizes, st.integers(0, 99))
def test_length_grouped_indices_are_steps_of_the_shuffled_samples(lengths, batch, world, seed):
    order = get_length_grouped_indices(lengths, batch, world, generator(seed))
    shuffled = torch.randperm(len(lengths), generator=generator(seed)).tolist()
    step = batch * world
    for start in range(0, len(lengths), step):
        own = order[start : start + step]
        assert sorted(own) == sorted(shuffled[start : start + step])
        if len(own) == step:
            chunks = [[lengths[i] for i in own[at : at + batch]] for at in range(0, step, batch)]
            assert all(chunk == sorted(chunk, reverse=True) for chunk in chunks)


@quick
@given(mixed, sizes, sizes, st.integers(0, 99))
def test_modality_grouped_indices_keep_complete_steps_of_one_modality(lengths, batch, world, seed):
    torch.manual_seed(seed)
    order = get_modality_length_grouped_indices(lengths, batch, world, generator(seed))
    assert sorted(order) == list(range(len(lengths)))
    step = batch * world
    counts = [sum(n > 0 for n in lengths), sum(n < 0 for n in lengths)]
    if all(counts):
        complete = sum((count - 1) // step for count in counts) * step
        for start in range(0, complete, step):
            assert len({lengths[i] > 0 for i in order[start : start + step]}) == 1
        assert order[complete:] == sorted(order[complete:])
    else:
        assert order == get_length_grouped_indices([abs(n) for n in lengths], batch, world, generator(seed))


def test_modality_grouped_indices_of_length_zero_raise():
    with pytest.raises(DataError, match="sample 2 has length 0"):
        get_modality_length_grouped_indices([3, -2, 0], 1, 1)


@pytest.mark.parametrize("by_modality", [False, True])
def test_sampler_gives_the_order_of_its_function(by_modality):
    lengths = [(-1) ** n * (n + 1) for n in range(30)] if by_modality else list(range(1, 31))
    order = get_modality_length_grouped_indices if by_modality else get_length_grouped_indices
    torch.manual_seed(5)
    expected = order(lengths, 2, world_size=3, generator=generator(1))
    torch.manual_seed(5)
    sampler = LengthGroupedSampler(2, 3, lengths=lengths, generator=generator(1), group_by_modality=by_modality)
    assert (len(sampler), list(sampler)) == (30, expected)


def test_sampler_without_lengths_raises():
    with pytest.raises(OptionError, match="needs the samples' lengths"):
        LengthGroupedSampler(2, 3)
