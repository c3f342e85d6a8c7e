"""Counts the operations of one row's answer, from what of its prompt was read and what ran."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ada.cost.flops import Flops, decode_flops, decoder_flops, prefill_flops
from ada.cost.products import LateReading
from ada.frontier.share import PromptTokens
from ada.image_tokens.late_selectors import late_reading
from ada.image_tokens.selection import NO_IMAGE_TOKENS, RowTokens
from ada.latency.grant import workload_of
from ada.latency.latency_model import Workload
from ada.model.reading import Reading, share_of
from ada.protocols import AdaptiveModel
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class RowCost:
    """What the cost of one row's answer depends on, apart from its plan.

    prompt_tokens: as they entered the decoder: image tokens, latency token and padding included; padding: of these,
    what a batch put before the row; num_images: that the vision tower saw, crops counted; scored: positions that got
    logits; image_tokens: how many there are and are read. late_selector: what chose those of later layers, which read
    ``late_tokens`` positions; None where they read all. masks_columns: the others' columns are masked in decode, as by
    transformers' loop, not absent. known_tokens: the first positions on which the prefix layers, and those from P on,
    did not run; known_crops: images whose features were known.
    """

    prompt_tokens: int
    padding: int = 0
    num_images: int = 0
    scored: int = 1
    image_tokens: RowTokens = NO_IMAGE_TOKENS
    late_selector: str | None = None
    late_tokens: int | None = None
    masks_columns: bool = False
    known_tokens: tuple[int, int] = (0, 0)
    known_crops: int = 0

    def alone(self) -> RowCost:
        """Return the same row as if it were asked alone: without padding."""
        tokens, image_tokens = self.prompt_tokens - self.padding, self.image_tokens
        left_out = sum(image_tokens.front) - sum(image_tokens.late)
        selector = self.late_selector if left_out else None
        late_tokens = None if selector is None else tokens - left_out
        return replace(self, prompt_tokens=tokens, padding=0, late_selector=selector, late_tokens=late_tokens)

    def workload(self, model: AdaptiveModel, num_units: int) -> Workload:
        """Return what the row's time is predicted for, asked alone under ``num_units`` tunable units."""
        tokens = self.image_tokens
        others = self.prompt_tokens - self.padding - sum(tokens.front)
        prompt = PromptTokens.with_images(others, sum(tokens.all), sum(tokens.front), sum(tokens.late))
        return workload_of(share_of(model, self.late_selector), prompt, self.num_images, num_units)

    def flops(self, model: AdaptiveModel, ran: ExecutionPlan) -> tuple[Flops, Flops]:
        """Return the operations, by part, of prefill and of the first decode step when ``ran`` runs."""
        num_images, encoding = self.num_images - self.known_crops, self.image_tokens.encoding
        if encoding is not None and self.known_crops:  # it lists all crops; the known are not among those encoded
            encoding = encoding._replace(sides=None, projected=None)
        tower = model.get_vision_tower() if num_images else None
        late = None
        if self.late_selector is not None and self.late_tokens is not None:
            late = late_reading(self.late_selector, model, self.prompt_tokens, self.late_tokens)
        prefill = prefill_flops(
            model.config,
            model.units,
            ran,
            self.prompt_tokens,
            num_images=num_images * (1 if tower is None else tower.crops_per_image),
            vision=None if tower is None else tower.config,
            vision_layers=0 if tower is None else tower.layers_run,
            projector=None if tower is None else model.get_model().mm_projector,
            image_tokens=0 if tower is None else num_images * tower.num_image_tokens,
            has_scheduler=model.scheduler is not None,
            scored=self.scored,
            late=late,
            encoding=encoding,
        )
        for part, known in zip(("prefix", "tunable"), self.known_tokens, strict=True):
            if known:
                new = self.prompt_tokens - known
                prefill[part] = decoder_flops(model.config, model.units, ran, new, self.prompt_tokens)[part]
        if late is not None:
            late = None if self.masks_columns else LateReading(late.first_layer, late.positions + 1)
        return prefill, decode_flops(model.config, model.units, ran, self.prompt_tokens + 1, late)


def costs_of(batch: EmbeddedBatch, reading: Reading, scored: int = 1) -> list[RowCost]:
    """Return what the cost of each row depends on; batch: what was read, latency tokens included."""
    mask, rows = batch.attention_mask, reading.rows
    padding = [0] * len(rows) if mask is None else (mask == 0).sum(dim=1).tolist()
    late_tokens = None
    if reading.late is not None:  # rows of fewer are padded to the row of the most
        late_tokens = batch.width - min(sum(row.front) - sum(row.late) for row in rows)
    return [
        RowCost(batch.width, own, images, scored, row, reading.late, late_tokens)
        for own, images, row in zip(padding, batch.images_per_row, rows, strict=True)
    ]
