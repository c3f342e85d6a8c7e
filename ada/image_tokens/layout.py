"""Lays out an image's tokens on the image: where each of them is, of one crop or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from llava.model.multimodal.anyres_merge import padding_of, unpadded_lines


@dataclass(frozen=True)
class Block:
    """Lines of an image's tokens, next to one another in the prompt, that cover a rectangle of the image.

    top, left, height, width: of the rectangle, in any unit. class_token: one comes before the lines. newlines: each
    line ends with one.
    """

    rows: int
    columns: int
    top: float
    left: float
    height: float
    width: float
    class_token: bool = False
    newlines: bool = False

    def __len__(self) -> int:
        return self.class_token + self.rows * (self.columns + self.newlines)

    def cells(self) -> torch.Tensor:
        """Return row and column (n, 2) of each token's centre; a newline's is at the end of its line."""
        rows = self.top + (torch.arange(self.rows) + 0.5) * (self.height / max(1, self.rows))
        columns = self.left + (torch.arange(self.columns + self.newlines) + 0.5) * (self.width / max(1, self.columns))
        lines = torch.cartesian_prod(rows, columns)
        centre = torch.tensor([[self.top + self.height / 2, self.left + self.width / 2]])
        return torch.cat([centre, lines]) if self.class_token else lines

    def nearest_in(self, larger: Block) -> torch.Tensor:
        """Return, for each token (n,), the nearest one of a block that covers the same with more tokens.

        They are ascending and unique; newlines have newlines.
        """
        rows = (2 * torch.arange(self.rows) + 1) * larger.rows // max(1, 2 * self.rows)
        columns = (2 * torch.arange(self.columns) + 1) * larger.columns // max(1, 2 * self.columns)
        if self.newlines:
            columns = torch.cat([columns, torch.tensor([larger.columns])])
        lines = rows[:, None] * (larger.columns + larger.newlines) + columns + int(larger.class_token)
        return torch.cat([torch.zeros(int(self.class_token), dtype=torch.long), lines.flatten()])


Layout = Sequence[Block]
"""The blocks of one image, in their order in the prompt."""


@dataclass(frozen=True)
class Merging:
    """How the crops of one image become its tokens, as ``merge_crops`` takes them.

    crops: their number, None for an image that is not merged at all; grid: crops across and down, and image_size:
    (width, height), None where they are not known.
    """

    crops: int | None
    merge_type: str = "flat"
    grid: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    max_crops: int | None = None
    class_token: bool = False

    def layout(self, side: int) -> Layout:
        """Return the blocks of the image where a crop has ``side`` by ``side`` patches; the unit is a patch.

        Crops of which it is not known where they are lie next to one another.
        """
        square = Block(side, side, 0, 0, side, side, self.class_token)
        unpad = self.merge_type == "spatial_unpad"
        if self.crops is None or self.crops == 1:
            newline = Block(1, 1, side - 1, side, 1, 1)
            return [square, newline] if unpad and self.crops else [square]
        if self.grid is None or self.image_size is None or self.crops != 1 + self.grid[0] * self.grid[1]:
            return [replace(square, left=number * side) for number in range(self.crops)]
        across, down = self.grid
        overview = self._overview(square, down * side, across * side)
        if self.merge_type == "flat":
            corners = [(row, column) for row in range(down) for column in range(across)]
            return [overview, *(replace(square, top=row * side, left=column * side) for row, column in corners)]
        if not unpad:
            return [overview, Block(down * side, across * side, 0, 0, down * side, across * side)]
        above, left = padding_of(down * side, across * side, self.image_size)
        rows, columns = unpadded_lines(side, self.grid, self.image_size, self.max_crops)
        height, width = down * side - 2 * above, across * side - 2 * left
        return [overview, Block(rows, columns, above, left, height, width, newlines=True)]

    def _overview(self, square: Block, rows: int, columns: int) -> Block:
        """Return the first crop, all of the image, where ``rows`` by ``columns`` patches hold it with its padding."""
        width, height = self.image_size or (1, 1)
        high, wide = min(rows, columns * height / width), min(columns, rows * width / height)
        return replace(square, top=(rows - high) / 2, left=(columns - wide) / 2, height=high, width=wide)


def cells_of(tokens: int) -> torch.Tensor:
    """Return row and column (n, 2) of each token of an image of one crop, read line by line.

    Those of an image that is no square of patches are taken for one line.
    """
    side = math.isqrt(tokens)
    rows, columns = (side, side) if side * side == tokens else (1, tokens)
    return Block(rows, columns, 0, 0, rows, columns).cells()


def tokens_in(layout: Layout) -> int:
    """Count an image's tokens."""
    return sum(len(block) for block in layout)


def cells_in(layout: Layout) -> torch.Tensor:
    """Return row and column (n, 2) of each token's centre on the image."""
    return torch.cat([block.cells() for block in layout])


def has_nearest(small: Layout, large: Layout) -> bool:
    """Return whether each token has another nearest one in ``large``; in a very thin image's few lines it may not."""
    pairs = zip(small, large, strict=True)
    return all(block.rows <= larger.rows and block.columns <= larger.columns for block, larger in pairs)


def nearest_tokens(small: Layout, large: Layout) -> torch.Tensor:
    """Return, for each token (n,) of an image, the nearest one of the same image with larger crops, ascending.

    ``has_nearest`` must hold.
    """
    nearest, before = [], 0
    for block, larger in zip(small, large, strict=True):
        nearest.append(block.nearest_in(larger) + before)
        before += len(larger)
    return torch.cat(nearest)
