"""Turns marks at a grid of settings into a frontier's points, its curves, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ada.budget import LatencyBudget
from ada.eval.answering.grid import GridSetting
from ada.eval.report.frontier_figure import Curve
from ada.eval.report.markdown import lines_of
from ada.eval.stats.accuracy import Accuracy
from ada.frontier.choice import AutoImageTokens, Prompt, choose
from ada.frontier.share import PrefillShare, PromptTokens
from ada.frontier.table import Point

BUDGETS = 200  # at which the curve of choices is drawn


@dataclass(frozen=True)
class Measured:
    """The accuracy at one setting, as a point too, and the share of the full prefill that the setting takes."""

    setting: GridSetting
    accuracy: Accuracy
    point: Point
    share: float


def measured_points(marks: Mapping[GridSetting, Sequence[bool]], share: PrefillShare, prompt: Prompt) -> list[Measured]:
    """Return what each setting's marks, one a question, are worth; ``prompt`` is a usual one, for the shares."""
    points = []
    for setting, own in marks.items():
        tokens, accuracy = (
            PromptTokens.under(setting.amount, prompt.others, prompt.images),
            Accuracy(sum(own), len(own)),
        )
        shares = prompt.setting(tokens, share.units.fraction(setting.num_units))
        taken = share.of_prefill(tokens, setting.num_units)
        points.append(Measured(setting, accuracy, Point(*shares, accuracy.share), taken))
    return points


def curves(measured: Sequence[Measured]) -> dict[str, Curve]:
    """Return the measured points of each amount of tokens, from the smallest share up."""
    names = dict.fromkeys(str(one.setting.amount) for one in measured)
    return {
        name: sorted((one.share, one.accuracy.share) for one in measured if str(one.setting.amount) == name)
        for name in names
    }


def chosen_curve(auto: AutoImageTokens, prompt: Prompt, minimum: float) -> Curve:
    """Return what ``auto`` chooses by budget, from ``minimum`` to 1: shares taken, and predicted accuracies."""
    budgets = [LatencyBudget(min(1.0, minimum + (1 - minimum) * step / BUDGETS)) for step in range(BUDGETS + 1)]
    chosen = [choose(auto.frontier, auto.offers(prompt, budget)) for budget in budgets]
    fitting = [offer for offer in chosen if offer.fits]
    accuracies = auto.frontier.predicted(offer.setting for offer in fitting)
    return [(offer.share, float(accuracy)) for offer, accuracy in zip(fitting, accuracies, strict=True)]


def best_of(measured: Sequence[Measured]) -> list[Measured]:
    """Return those that no other one beats in accuracy at the same or a smaller share, by falling share."""
    best: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.share, -one.accuracy.share)):
        if not best or one.accuracy.share > best[-1].accuracy.share:
            best.append(one)
    return best[::-1]


def frontier_table(measured: Sequence[Measured]) -> str:
    """Write all settings as a Markdown table, by falling share; those on the frontier are marked."""
    best = best_of(measured)
    lines = [["share of the prefill", "image tokens", "units", "accuracy, %", "95 % interval", "best so far"]]
    for one in sorted(measured, key=lambda one: -one.share):
        low, high = one.accuracy.interval
        lines.append(
            [
                f"{one.share:.3f}",
                str(one.setting.amount),
                f"{one.point.units:.3g}",
                f"{100 * one.accuracy.share:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                "yes" if one in best else "",
            ]
        )
    return lines_of(lines) + "\n"
