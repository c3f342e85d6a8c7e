"""Fills the rows of embedding tables that are added for new tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from llava.errors import CheckpointError
from llava.model.checkpoint.weights_io import read_weights
from llava.model.checkpoint.zero3 import gathered_parameters


def fill_new_rows(tables: Iterable[nn.Parameter], new: int) -> None:
    """Set the last ``new`` rows of embedding tables to the mean of the others."""
    for table in tables:
        with gathered_parameters([table]):
            table.data[-new:] = table.data[:-new].mean(dim=0, keepdim=True)


def copy_new_rows(table: torch.Tensor, new: int, path: Path) -> None:
    """Fill the last ``new`` rows of an embedding table from a projector-only file: its table's last rows.

    Raises CheckpointError where the file has no table, or one of another shape.
    """
    saved = read_weights(path).get("model.embed_tokens.weight")
    if saved is None:
        raise CheckpointError(f"{path} has no model.embed_tokens.weight, which --mm_use_im_start_end needs")
    if saved.shape not in (table.shape, (new, table.shape[1])):
        raise CheckpointError(
            f"model.embed_tokens.weight in {path} is {tuple(saved.shape)}; expected {tuple(table.shape)} or "
            f"{(new, table.shape[1])}"
        )
    table[-new:] = saved[-new:]
