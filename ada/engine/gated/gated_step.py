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
from ada.engine.gated.slots import KeyValueSlots
from ada.engine.gated.tiling import Tiling, padded
from ada.engine.gated.work_buffers import WorkBuffers


class GatedStep:
    """A decode step on the weights of ``model`` where they are: nothing is copied, nothing kept on the model.

    model: a causal language model of Llama's layout that ``usable.reason_against_decoder`` has nothing against; slots:
    the rows' keys and values; positions: how many positions a row may reach; tiling: block sizes.

    On CUDA a step is one graph for each number of rows (1, 2, 4, ...), recorded when first needed or by ``prepare``,
    and valid for every plan: give the rows theirs by ``plan.set``, ``plan.clear`` and ``plan.move``.
    """

    def __init__(self, model: Any, slots: KeyValueSlots, positions: int, tiling: Tiling | None = None) -> None:
        self._decoder, self._head, self._slots = model.model, model.lm_head, slots
        self._tiling, self._shapes = tiling or Tiling(), DecoderShapes.of(model.config)
        table = self._decoder.embed_tokens.weight
        self.max_rows = len(slots.positions)
        self._work = WorkBuffers.make(self._shapes, self.max_rows, self._tiling, table.detach())
        self.plan = DevicePlan(self._shapes.layers, self.max_rows, self._shapes.kv_heads, table.device)
        self._tokens = torch.zeros(self.max_rows, dtype=torch.long, device=table.device)
        self._logits = torch.zeros(self.max_rows, self._head.out_features, device=table.device)
        cosines, sines = rotations(self._decoder.rotary_emb, positions, table.device)
        self._layers = [
            GatedLayer(
                layer,
                self._shapes,
                self.plan.layers[index],
                LayerCache(keys, values, slots.lengths[level], slots.positions, cosines, sines),
                self._work,
                self._tiling,
            )
            for index, (layer, keys, values, level) in enumerate(
                zip(self._decoder.layers, slots.keys, slots.values, slots.levels, strict=True)
            )
        ]
        self._graphs = StepGraphs(self._run, table.device)

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the rows' last tokens (R,); return logits (R, vocabulary), float32, which the next step overwrites.

        Each row's keys and values join its slot, whose length and position grow by 1. The host does not wait. Raises
        ValueError where the slots with a plan are not 0 to R - 1.
        """
        rows = len(tokens)
        if self.plan.used_slots() != [*range(rows)]:
            raise ValueError(f"{rows} tokens for slots {self.plan.used_slots()}; expected one a slot, from slot 0 on")
        padded_rows = self._padded(rows)
        self.prepare(rows)
        self.plan.upload()
        self._tokens[:rows].copy_(tokens, non_blocking=True)
        self._graphs.run(padded_rows)
        return self._logits[:rows]

    @torch.no_grad()
    def prepare(self, rows: int) -> None:
        """Record the graph that ``rows`` need, where there is none: some hundred milliseconds, once."""
        if not self._graphs.knows(self._padded(rows)):
            self.plan.pause()
            self._graphs.record(self._padded(rows))

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
        self._slots.lengths[:, :rows] += self.plan.used[:rows]
        self._slots.positions[:rows] += self.plan.used[:rows]


def rotations(rotary: Any, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (positions, d / 2), float32, as the model's own rotary embedding makes them."""
    cosines, sines = rotary(torch.zeros(1, device=device), torch.arange(positions, device=device)[None])
    half = cosines.shape[-1] // 2
    return cosines[0, :, :half].contiguous(), sines[0, :, :half].contiguous()
