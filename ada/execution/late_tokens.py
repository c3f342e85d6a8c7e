"""Lets later layers read fewer image tokens: chosen as a layer is entered, left out of it and of those after it.

A token that is left out skips those layers: its hidden state passes unchanged, its column of their caches is masked. So
hidden states and caches keep their width, whatever a row keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ada.execution.cached_columns import check_growing, widen
from ada.execution.column_masks import masked_columns, sliced_mask
from llava.model.multimodal.image_spans import Spans

RunLayer = Callable[..., torch.Tensor]
"""Hidden states (B, t, D) and a layer's keywords -> hidden states."""


class LateSelector(Protocol):
    """Scores the tokens that a prompt's later layers may read."""

    @property
    def reads(self) -> int:
        """The layer whose input the scores are of."""

    def scores(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any]) -> torch.Tensor:
        """Return the scores (B, T) of a prompt's columns, the higher the better; those of text are not used.

        layer: the decoder layer that is entered; hidden: (B, T, D), what enters it; keywords: what it is called with.
        """


@dataclass
class LateTokens:
    """The image tokens that layers from ``first_layer`` on read, of one call.

    spans: the columns of each row's images; keep: how many of each stay; selector: which ones. stays: (B, T), bool, the
    columns that those layers read, once they are chosen.
    """

    first_layer: int
    spans: Spans
    keep: Sequence[Sequence[int]]
    selector: LateSelector
    stays: torch.Tensor | None = None
    _slices: Slices | None = field(default=None, init=False)
    _scores: torch.Tensor | None = field(default=None, init=False)
    _step: tuple[object, int, Any] | None = field(default=None, init=False)  # the mask of the running decode step

    def run(self, layer: Any, run: RunLayer, hidden: torch.Tensor, keywords: dict[str, Any]) -> torch.Tensor:
        """Call ``run`` for ``layer`` with what it reads of ``hidden`` (B, T, D); return hidden states of that shape."""
        self.see(layer, hidden, keywords)
        if layer.self_attn.layer_idx < self.first_layer:
            return run(hidden, **keywords)
        stays = self.choose(hidden)
        if hidden.shape[1] == stays.shape[1]:
            return self._run_prompt(layer, run, hidden, keywords)
        return run(hidden, **{**keywords, "attention_mask": self._step_mask(layer, hidden, keywords)})

    def see(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any]) -> None:
        """Score the columns of ``hidden`` (B, T, D) where it enters the layer that the scores are of."""
        if self._scores is None and self.stays is None and layer.self_attn.layer_idx == self.selector.reads:
            self._scores = self.selector.scores(layer, hidden, keywords)

    def choose(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the columns (B, T) that stay of ``hidden`` (B, T, D); chosen once."""
        if self.stays is None:
            self.stays = self._chosen(hidden)
            self._scores = None
        return self.stays

    def _chosen(self, hidden: torch.Tensor) -> torch.Tensor:
        """Columns (B, T) that stay: text, and of each image the tokens of the highest scores."""
        batch, width = hidden.shape[:2]
        stays = torch.ones(batch, width, dtype=torch.bool, device=hidden.device)
        beams = batch // len(self.spans)
        for row in range(batch):
            for span, keep in zip(self.spans[row // beams], self.keep[row // beams], strict=True):
                scores: torch.Tensor = self._scores[row, span.start : span.end]  # type: ignore[index]
                best = scores.topk(min(keep, len(span))).indices.to(stays.device)
                stays[row, span.start : span.end] = False
                stays[row, span.start + best] = True
        return stays

    def _run_prompt(self, layer: Any, run: RunLayer, hidden: torch.Tensor, keywords: dict[str, Any]) -> torch.Tensor:
        if self._slices is None:
            self._slices = Slices.of(self.stays)  # type: ignore[arg-type]
        slices, index = self._slices, layer.self_attn.layer_idx
        cache = keywords.get("past_key_values")
        check_growing(cache)
        out = run(slices.take(hidden), **slices.keywords(layer, keywords, hidden))
        if cache is not None and index < len(cache.layers) and cache.layers[index].is_initialized:
            widen(cache.layers[index], slices)
        return slices.put(out, hidden)

    def _step_mask(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any]) -> Any:
        """One decode step's mask, the same for every layer: made once. The first layer has added the step's column."""
        mask, width = keywords.get("attention_mask"), keywords["past_key_values"].get_seq_length()
        if self._step is None or self._step[0] is not mask or self._step[1] != width:
            stays: torch.Tensor = self.stays  # type: ignore[assignment]
            self._step = mask, width, masked_columns(layer, mask, stays, hidden, width)
        return self._step[2]


class JoinedLateTokens:
    """What later layers read of rows that decode as one batch, after each has chosen in its own prefill.

    rows: each row's choice, None where its layers read all; lengths: the columns of each row's own cache, which end at
    the right of the batch's.
    """

    def __init__(self, rows: Sequence[LateTokens | None], lengths: Sequence[int]) -> None:
        self.first_layers = sorted({row.first_layer for row in rows if row is not None})
        self._stays = {first: _joined_columns(rows, lengths, first) for first in self.first_layers}
        self._steps: dict[int, tuple[object, int, torch.Tensor]] = {}

    def run(self, layer: Any, run: RunLayer, hidden: torch.Tensor, keywords: dict[str, Any]) -> torch.Tensor:
        """Call ``run`` for ``layer``, with what each row reads masked to what it keeps."""
        levels = [first for first in self.first_layers if first <= layer.self_attn.layer_idx]
        if not levels:
            return run(hidden, **keywords)
        mask, width = keywords.get("attention_mask"), keywords["past_key_values"].get_seq_length()
        step = self._steps.get(levels[-1])
        if step is None or step[0] is not mask or step[1] != width:
            stays = self._stays[levels[-1]] = self._stays[levels[-1]].to(hidden.device)  # moved in the first step
            step = self._steps[levels[-1]] = mask, width, masked_columns(layer, mask, stays, hidden, width)
        return run(hidden, **{**keywords, "attention_mask": step[2]})


def _joined_columns(rows: Sequence[LateTokens | None], lengths: Sequence[int], first: int) -> torch.Tensor:
    """Columns (rows, width) of the joined cache that layer ``first`` reads."""
    stays = torch.ones(len(rows), max(lengths), dtype=torch.bool)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if row is not None and row.first_layer <= first and row.stays is not None:
            own, start = row.stays[0].cpu(), max(lengths) - length
            stays[index, start : start + len(own)] = own
    return stays


@dataclass(frozen=True)
class Slices:
    """The columns that stay, as indices: (B, W), rows of fewer padded on the left where ``real`` (B, W) is False.

    ragged: whether rows keep different numbers of columns. Layers may be on several devices: indices follow what they
    are used on.
    """

    stays: torch.Tensor
    columns: torch.Tensor
    real: torch.Tensor
    targets: torch.Tensor  # (B, T): for each column that stays, where among the W it is
    ragged: bool

    @classmethod
    def of(cls, stays: torch.Tensor) -> Slices:
        """Index the columns of ``stays`` (B, T), bool."""
        counts = stays.sum(dim=1, keepdim=True)
        numbers = counts.flatten().tolist()  # one wait for a GPU, and none in the layers
        width = max(numbers)
        order = stays.int().argsort(dim=1, stable=True)[:, -width:]  # those that stay come last, in their order
        real = torch.arange(width, device=stays.device)[None] >= width - counts
        targets = (stays.long().cumsum(dim=1) - 1 + width - counts).clamp(min=0)
        return cls(stays, order, real, targets, ragged=min(numbers) < width)

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """Return the columns (B, W, ...) of values (B or 1, T, ...)."""
        values = values.expand(len(self.columns), *values.shape[1:])
        index = self.columns.to(values.device).view(*self.columns.shape, *[1] * (values.dim() - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))

    def put(self, taken: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return values (B, T, D) with the columns that stay from ``taken`` (B, W, D), where this one is."""
        targets, stays, values = (part.to(taken.device) for part in (self.targets, self.stays, values))
        spread = taken.gather(1, targets[..., None].expand_as(values))
        return torch.where(stays[..., None], spread, values)

    def widened(self, cached: torch.Tensor) -> torch.Tensor:
        """Return a layer's keys or values (B, H, W, d) with zeros for columns that were left out: (B, H, T, d).

        Where a sliding window has cut them to the last of the W columns, those before are zeros too.
        """
        targets = self.targets.to(cached.device) - (self.real.shape[1] - cached.shape[2])
        index = targets.clamp(min=0)[:, None, :, None].expand(-1, cached.shape[1], -1, cached.shape[3])
        return cached.gather(2, index) * (self.stays.to(cached.device) & (targets >= 0))[:, None, :, None]

    def keywords(self, layer: Any, given: Mapping[str, Any], hidden: torch.Tensor) -> dict[str, Any]:
        """Return a layer's keywords for the columns that stay."""
        taken = dict(given)
        taken["attention_mask"] = sliced_mask(layer, given.get("attention_mask"), self, hidden)
        taken["position_embeddings"] = tuple(self.take(part) for part in given["position_embeddings"])
        if given.get("position_ids") is not None:
            taken["position_ids"] = self.take(given["position_ids"])
        return taken
