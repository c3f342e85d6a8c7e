"""Decodes one token for every row, each under its plan, in kernels that read only what some row has on."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ada.engine.gated.device_plan import DevicePlan
from ada.engine.gated.gated_layer import GatedLayer, LayerCache
from ada.engine.gated.graphs import StepGraphs
from ada.engine.gated.residual_kernel import embed_kernel
from ada.engine.gated.shapes import DecoderShapes
from ada.engine.gated.slot_lengths import SlotLengths
from ada.engine.gated.slots import KeyValueSlots, SlotRow
from ada.engine.gated.tiling import Tiling, padded
from ada.engine.gated.work_buffers import WorkBuffers


class GatedStep:
    """A decode step on the weights of ``model`` where they are: nothing is copied, nothing kept on the model.

    model: a causal language model of Llama's layout that ``usable.reason_against_decoder`` has nothing against; slots:
    the rows' keys and values; positions: how many positions a row may reach; tiling: block sizes.

    On CUDA a step is one graph for each number of rows (1, 2, 4, ...), recorded when first needed or by ``prepare``,
    and valid for every plan. Rows ``join``, ``leave`` and ``move`` between steps; none of these waits for the device.
    """

    def __init__(self, model: Any, slots: KeyValueSlots, positions: int, tiling: Tiling | None = None) -> None:
        self._decoder, self._head, self._slots = model.model, model.lm_head, slots
        self._tiling, self._shapes = tiling or Tiling(), DecoderShapes.of(model.config)
        table = self._decoder.embed_tokens.weight.detach()
        device = table.device
        self.max_rows = len(slots.layers[0][0])
        self._plan = DevicePlan(self._shapes.layers, self.max_rows, self._shapes.kv_heads, device)
        self._lengths = SlotLengths(self._shapes.layers, self.max_rows, positions, device)
        self._work = WorkBuffers.make(self._shapes, self.max_rows, self._tiling, table)
        self._tokens = torch.zeros(self.max_rows, dtype=torch.long, device=device)
        self._logits = torch.zeros(self.max_rows, self._head.out_features, device=device)
        self._rotations = rotations(self._decoder.rotary_emb, positions, device)
        self._bind()

    def join(self, row: SlotRow) -> None:
        """Take a row that has been read into its slot, or one whose plan is another now."""
        held = [row.held_heads(layer) for layer in range(self._shapes.layers)]
        self._plan.set(row.slot, row.plan, held)
        self._lengths.set(row.slot, row.columns, row.position)

    def leave(self, slot: int) -> None:
        """Forget the row in a slot."""
        self._plan.clear(slot)

    def move(self, source: int, target: int) -> None:
        """Take the row in ``source`` to be in ``target``; who moves its keys and values is the caller."""
        self._plan.move(source, target)
        self._lengths.move(source, target)

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the rows' last tokens (R,); return logits (R, vocabulary), float32, which the next step overwrites.

        Each row's keys and values join its slot. The host does not wait. Raises ValueError where the rows are not in
        slots 0 to R - 1, or one has no column or position left.
        """
        rows = len(tokens)
        if self._plan.used_slots() != [*range(rows)]:
            raise ValueError(f"{rows} tokens for slots {self._plan.used_slots()}; expected one a slot, from slot 0 on")
        if self._bound is not self._slots.layers:
            self._bind()
        self._lengths.check(rows, self._capacity)
        self.prepare(rows)
        self._plan.upload()
        self._tokens[:rows].copy_(tokens, non_blocking=True)
        self._graphs.run(self._padded(rows))
        self._lengths.count()
        return self._logits[:rows]

    @torch.no_grad()
    def prepare(self, rows: int) -> None:
        """Record the graph that ``rows`` need, where there is none: some hundred milliseconds, once."""
        if not self._graphs.knows(self._padded(rows)):
            self._plan.pause()
            self._graphs.record(self._padded(rows))

    def _bind(self) -> None:
        """Point the layers to the slots' memory; graphs of other memory are dropped."""
        self._bound = self._slots.layers
        self._capacity = self._bound[0][0].shape[2]
        self._layers = [
            GatedLayer(
                layer,
                self._shapes,
                self._plan.layers[index],
                LayerCache(*pair, self._lengths.columns[index], self._lengths.positions, *self._rotations),
                self._work,
                self._tiling,
            )
            for index, (layer, pair) in enumerate(zip(self._decoder.layers, self._bound, strict=True))
        ]
        self._graphs = StepGraphs(self._run, self._tokens.device)

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
        self._logits[:rows].copy_(functional.linear(normed, self._head.weight, self._head.bias))
        self._lengths.advance(self._plan.used)


def rotations(rotary: Any, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (positions, d / 2), float32, as the model's own rotary embedding makes them."""
    cosines, sines = rotary(torch.zeros(1, device=device), torch.arange(positions, device=device)[None])
    half = cosines.shape[-1] // 2
    return cosines[0, :, :half].contiguous(), sines[0, :, :half].contiguous()
