"""Orders samples in upstream's way, for scripts that call it by name; training here uses ``samplers``.

A step has ``world_size * batch_size`` samples: ``batch_size`` of each of ``world_size`` processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from llava.errors import DataError, OptionError


def split_to_even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Split a step's samples into ``num_chunks`` of equal size, of similar total length where they divide evenly.

    Each sample goes to the chunk that is shortest so far and not full yet; the first of equals.
    """
    size, rest = divmod(len(indices), num_chunks)
    if rest:
        return [list(indices[start::num_chunks]) for start in range(num_chunks)]
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    totals = [0] * num_chunks
    for index in indices:
        open_chunks = [number for number in range(num_chunks) if len(chunks[number]) < size]
        shortest = min(open_chunks, key=lambda number: totals[number])
        chunks[shortest].append(index)
        totals[shortest] += lengths[index]
    return chunks


def get_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None = None,
    merge: bool = True,
) -> list[int]:
    """Return all indices, shuffled; in each step the longest first, shared evenly among the processes.

    ``merge`` has no effect, as upstream.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    found = []
    for step in _pieces(order, world_size * batch_size):
        step.sort(key=lambda index: lengths[index], reverse=True)
        found += [index for chunk in split_to_even_chunks(step, lengths, world_size) for index in chunk]
    return found


def get_modality_length_grouped_indices(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Return all indices, in shuffled steps of one modality; what fills no step of its modality comes last, by index.

    lengths: negative for samples without an image. ``generator`` draws the order of the steps; the order within a
    modality comes from torch's global generator, as upstream. Raises DataError for a length of 0.
    """
    if 0 in lengths:
        raise DataError(
            f"sample {list(lengths).index(0)} has length 0; expected one above 0, or below without an image"
        )
    groups = [[i for i, n in enumerate(lengths) if n > 0], [i for i, n in enumerate(lengths) if n < 0]]
    if not all(groups):
        return get_length_grouped_indices([abs(n) for n in lengths], batch_size, world_size, generator)
    steps: list[list[int]] = []
    last: list[int] = []
    for group in groups:
        order = get_length_grouped_indices([abs(lengths[index]) for index in group], batch_size, world_size)
        *complete, end = _pieces([group[number] for number in order], world_size * batch_size)
        steps += complete
        last += end
    shuffled = [steps[number] for number in torch.randperm(len(steps), generator=generator).tolist()]
    return [index for step in [*shuffled, sorted(last)] for index in step]


def _pieces(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


class LengthGroupedSampler(Sampler[int]):
    """Samples in an order of ``get_length_grouped_indices``, or of ``get_modality_length_grouped_indices``.

    Raises OptionError without ``lengths``.
    """

    def __init__(
        self,
        batch_size: int,
        world_size: int,
        lengths: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        group_by_modality: bool = False,
    ) -> None:
        if lengths is None:
            raise OptionError("LengthGroupedSampler needs the samples' lengths")
        self.batch_size, self.world_size, self.lengths = batch_size, world_size, lengths
        self.generator, self.group_by_modality = generator, group_by_modality

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = get_modality_length_grouped_indices if self.group_by_modality else get_length_grouped_indices
        return iter(order(self.lengths, self.batch_size, self.world_size, generator=self.generator))
