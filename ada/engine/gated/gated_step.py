"""Decodes one token for every row, each under its plan, in kernels that read only what some row has on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ada.engine.gated.device_plan import DevicePlan
from ada.engine.gated.gated_layer import GatedLayer, LayerCache
from ada.engine.gated.graphs import StepGraphs
from ada.engine.gated.residual_kernel import embed_kernel
from ada.engine.gated.row_counts import RowCounts
from ada.engine.gated.shapes import DecoderShapes
from ada.engine.gated.slots import KeyValueSlots, SlotRow
from ada.engine.gated.tiling import Tiling, padded
from ada.engine.gated.work_buffers import WorkBuffers

MIN_POSITIONS = 1024


class GatedStep:
    """A decode step on the weights of ``model`` where they are: nothing is copied, nothing kept on the model.

    model: a causal language model of Llama's layout that ``usable.reason_against_decoder`` has nothing against; slots:
    the rows' keys and values; tiling: block sizes.

    On CUDA a step is one graph for each number of rows (1, 2, 4, ...), recorded when first needed or by ``prepare``,
    and valid for every plan, until the slots grow.
    """

    def __init__(self, model: Any, slots: KeyValueSlots, tiling: Tiling | None = None) -> None:
        self._decoder, self._head, self._slots = model.model, model.lm_head, slots
        self._tiling, self._shapes = tiling or Tiling(), DecoderShapes.of(model.config)
        table = self._decoder.embed_tokens.weight.detach()
        self._device = table.device
        self.max_rows = len(slots.layers[0][0])
        self._plan = DevicePlan(self._shapes.layers, self.max_rows, self._shapes.kv_heads, self._device)
        self._counts = RowCounts(self._shapes.layers, self.max_rows, self._device)
        self._work = WorkBuffers.make(self._shapes, self.max_rows, self._tiling, table)
        self._tokens = torch.zeros(self.max_rows, dtype=torch.long, device=self._device)
        self._logits = torch.zeros(self.max_rows, self._head.out_features, device=self._device)
        self._rows: list[SlotRow | None] = [None] * self.max_rows  # as the device knows them
        self._bind(MIN_POSITIONS)

    @torch.no_grad()
    def step(self, rows: Sequence[SlotRow], tokens: torch.Tensor) -> torch.Tensor:
        """Run the rows' last tokens (R,); return the logits (R, vocabulary), float32, of the next ones.

        rows: what is in slots 0 to R - 1, in this order; between steps rows may join, leave and move as they like. Each
        row's keys and values join its slot, and it advances. The host does not wait for the device.
        """
        slots = [row.slot for row in rows]
        if slots != [*range(len(tokens))]:
            raise ValueError(f"{len(tokens)} tokens for rows in slots {slots}; expected a row a token, from slot 0 on")
        self._reach(max(max(row.columns) for row in rows) + 1, max(row.position for row in rows) + 1)
        self._join(rows)
        self.prepare(len(rows))
        self._plan.upload()
        self._tokens[: len(rows)].copy_(tokens, non_blocking=True)
        self._graphs.run(self._padded(len(rows)), self._run)
        for row in rows:
            row.advance()
        return self._logits[: len(rows)].clone()  # the next step writes there

    @torch.no_grad()
    def prepare(self, rows: int) -> None:
        """Record the graph that ``rows`` need, where there is none: some hundred milliseconds, once."""
        if not self._graphs.knows(self._padded(rows)):
            self._plan.pause()
            self._graphs.record(self._padded(rows), self._run)

    def forget(self, slot: int) -> None:
        """Read the row in a slot anew in the next step, as its plan has changed."""
        self._rows[slot] = None

    def _reach(self, columns: int, positions: int) -> None:
        """Hold so many columns and positions."""
        self._slots.reach(columns)
        if self._bound is not self._slots.layers or positions > len(self._cosines):
            self._bind(max(positions, len(self._cosines)))

    def _join(self, rows: Sequence[SlotRow]) -> None:
        """Bring the rows that are new in their slots to the device, and take away those that have left."""
        for slot, known in enumerate(self._rows):
            row = rows[slot] if slot < len(rows) else None
            if row is known:
                continue
            if row is None:
                self._plan.clear(slot)
            else:
                self._plan.set(slot, row.plan, [row.held_heads(layer) for layer in range(self._shapes.layers)])
                self._counts.set(slot, row.columns, row.position)
            self._rows[slot] = row

    def _bind(self, positions: int) -> None:
        """Point the layers to the slots' memory and to rotations of ``positions``; old graphs are dropped."""
        self._bound = self._slots.layers
        self._cosines, sines = rotations(self._decoder.rotary_emb, padded(positions, MIN_POSITIONS), self._device)
        self._layers = [
            GatedLayer(
                layer,
                self._shapes,
                self._plan.layers[index],
                LayerCache(*pair, self._counts.columns[index], self._counts.positions, self._cosines, sines),
                self._work,
                self._tiling,
            )
            for index, (layer, pair) in enumerate(zip(self._decoder.layers, self._bound, strict=True))
        ]
        self._graphs = StepGraphs(self._device)

    def _padded(self, rows: int) -> int:
        """Return the number of rows that run for ``rows``; the slots of the others have no plan, so they do nothing."""
        return min(padded(rows, minimum=1), self.max_rows)

    def _run(self, rows: int) -> None:
        shapes, work = self._shapes, self._work
        embed_kernel[(self._tiling.parts(rows, shapes.width),)](
            self._tokens, self._decoder.embed_tokens.weight, work.x, work.squares, width=shapes.width,
            stride=work.squares.shape[1], num_rows=rows, rows_padded=padded(rows, minimum=1),
            block=self._tiling.columns(rows).channels,
        )  # fmt: skip
        for layer in self._layers:
            layer.run(rows)
        normed = functional.rms_norm(work.x[:rows], (shapes.width,), self._decoder.norm.weight, shapes.eps)
        self._logits[:rows].copy_(self._head(normed))
        self._counts.advance(self._plan.used)


def rotations(rotary: Any, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (positions, d / 2), float32, as the model's own rotary embedding makes them."""
    cosines, sines = rotary(torch.zeros(1, device=device), torch.arange(positions, device=device)[None])
    half = cosines.shape[-1] // 2
    return cosines[0, :, :half].contiguous(), sines[0, :, :half].contiguous()
