"""Chooses how many image tokens a prompt's layers read under a budget: the most accurate setting that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ada.budget import Budget, LatencyBudget
from ada.frontier.share import PrefillShare, PromptTokens
from ada.frontier.store import frontier_of
from ada.frontier.table import Frontier, Setting
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, Amount, ImageTokens
from ada.latency.grant import needed_predictor, workload_of
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.latency_token import answer_position
from llava.model.multimodal.embedded_batch import EmbeddedBatch

SHARES = (1.0, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 6, 1 / 8)
DIGITS = 9  # of accuracies: what differs after these is rounding


def candidate_amounts(late: bool, minimum: float | None = None) -> list[ImageTokens]:
    """Return the amounts to choose from: shares of each image's tokens.

    late: later layers may read fewer than enter the decoder. minimum: the lowest share of tokens that the checkpoint
    was trained with (``image_token_dropout``); fewer do not enter the decoder then.
    """
    fronts = [share for share in SHARES if minimum is None or share >= minimum]
    if minimum is not None and minimum not in fronts:
        fronts.append(minimum)
    amounts = [ImageTokens(Amount(share=front)) for front in fronts]
    if late:
        pairs = [(front, kept) for front in fronts for kept in SHARES if kept < front]
        amounts += [ImageTokens(Amount(share=front), Amount(share=kept)) for front, kept in pairs]
    return amounts


@dataclass(frozen=True)
class Prompt:
    """One prompt's positions: others, that are no image tokens, latency token included; images: tokens of each image.

    num_images: that the vision tower sees, crops counted.
    """

    others: int
    images: tuple[int, ...]
    num_images: int

    def setting(self, tokens: PromptTokens, units: float) -> Setting:
        """Return the shares of the prompt's image tokens and of units that a frontier goes by."""
        images = sum(self.images)
        return (tokens.front - self.others) / images, (tokens.late - self.others) / images, units


def prompts_of(batch: EmbeddedBatch, has_latency_token: bool) -> list[Prompt]:
    """Return each row's prompt, before any image token is left out: without padding, and without a given answer."""
    ends = answer_position(batch).tolist()  # where the latency token goes, which an answer follows
    mask, prompts = None if batch.attention_mask is None else batch.attention_mask.cpu(), []
    for row, (end, num_images) in enumerate(zip(ends, batch.images_per_row, strict=True)):
        positions = end if mask is None else int((mask[row, :end] != 0).sum())
        images = () if batch.image_spans is None else tuple(len(span) for span in batch.image_spans[row])
        text = max(int(not images), positions - sum(images))  # a row that is all answer has none
        prompts.append(Prompt(text + has_latency_token, images, num_images))
    return prompts


@dataclass(frozen=True)
class Offer:
    """What a budget pays for with one amount of image tokens.

    setting: as a frontier takes it; share: of the full prefill that it takes; fits: whether even the prefix does.
    """

    amount: ImageTokens
    setting: Setting
    share: float
    fits: bool


def choose(frontier: Frontier, offers: Sequence[Offer]) -> Offer:
    """Return the offer of the highest predicted accuracy that fits; of equal ones, that of the smallest share.

    Where nothing fits, the one of the smallest share of all.
    """
    fitting = [offer for offer in offers if offer.fits]
    if not fitting:
        return min(offers, key=lambda offer: offer.share)
    accuracies = frontier.predicted(offer.setting for offer in fitting).round(DIGITS)
    best = accuracies.max()
    return min(
        (offer for offer, accuracy in zip(fitting, accuracies, strict=True) if accuracy == best),
        key=lambda offer: offer.share,
    )


@dataclass(frozen=True)
class AutoImageTokens:
    """Chooses amounts of image tokens for one model: ``image_tokens="auto"``.

    candidates: amounts, none of them ``auto``; predictor: this device's calibration, which budgets in time need.
    """

    frontier: Frontier
    share: PrefillShare
    candidates: Sequence[ImageTokens]
    predictor: TTFTPredictor | None = None

    @classmethod
    def of(
        cls,
        config: Any,
        share: PrefillShare,
        predictor: TTFTPredictor | None = None,
        late: bool = False,
        late_alone: bool = False,
    ) -> AutoImageTokens:
        """Return what chooses for a loaded model of this config, by the frontier of its checkpoint.

        late: whether later layers may read fewer tokens than enter; late_alone: all enter. Raises CheckpointError for a
        frontier that is not this checkpoint's.
        """
        candidates = candidate_amounts(late, getattr(config, "image_token_dropout", None))
        if late_alone:
            candidates = [amount for amount in candidates if amount.front.share == 1]
        return cls(frontier_of(config), share, candidates, predictor)

    def amount(self, prompt: Prompt, budget: Budget | None, elapsed: Elapsed = NO_TIME_ELAPSED) -> ImageTokens:
        """Return what a prompt reads under its budget: all tokens without a budget, or without images.

        Raises OptionError for a time without a calibration.
        """
        if budget is None or not prompt.images:
            return ALL_IMAGE_TOKENS
        return choose(self.frontier, self.offers(prompt, budget, elapsed)).amount

    def offers(self, prompt: Prompt, budget: Budget, elapsed: Elapsed = NO_TIME_ELAPSED) -> list[Offer]:
        """Return what a budget pays for with each of the candidates."""
        return [self._offer(amount, prompt, budget, elapsed) for amount in self.candidates]

    def _offer(self, amount: ImageTokens, prompt: Prompt, budget: Budget, elapsed: Elapsed) -> Offer:
        tokens = PromptTokens.under(amount, prompt.others, prompt.images)
        if isinstance(budget, LatencyBudget):
            num_units = self.share.granted(budget.fraction, tokens)
            fits = self.share.is_within(budget.fraction, tokens, num_units)
        else:
            predictor = needed_predictor(self.predictor, budget)
            asked = workload_of(self.share, tokens, prompt.num_images)
            num_units = max(self.share.min_units, predictor.units_within(budget, asked, elapsed))
            granted = workload_of(self.share, tokens, prompt.num_images, num_units)
            fits = predictor.fits(budget, granted, elapsed)
        setting = prompt.setting(tokens, self.share.units.fraction(num_units))
        return Offer(amount, setting, self.share.of_prefill(tokens, num_units), fits)
