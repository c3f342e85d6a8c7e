"""Holds the frontiers of checkpoints that have no table: what a study on the bundled models has found.

Figures are retained accuracy: of 1,000 test questions of the shapes world, 36 image tokens, kind H with 2 of 10 layers
in the prefix, tokens chosen by ``salient`` before the decoder and by a learned scorer as layer P is entered. They are
defaults: for other models, LLaVA-1.5-7B among them, nothing of this was measured; ``python -m ada.eval.frontier`` does.
"""

from __future__ import annotations

from typing import Any

from ada.frontier.table import Frontier, Point


def _points(*rows: tuple[float, float, float, float]) -> tuple[Point, ...]:
    """Points of rows (tokens that enter, tokens of later layers, units, retained accuracy)."""
    return tuple(Point(front / 36, late / 36, units, accuracy) for front, late, units, accuracy in rows)


# Trained with --image_token_dropout. Each is relative to the full setting of the same run: half of the samples with all
# tokens for 18 and 9 tokens under budgets 0.5 and 0.75, and 18 at 1; a run with fewer such samples for the others; 0.3
# of the units from further runs. Settings of the scorer that were measured above a larger one are left out.
TRAINED = Frontier(
    _points(
        (36, 36, 1.0, 1.0),
        (36, 36, 0.75, 1.0),
        (36, 36, 0.5, 0.985),
        (36, 36, 0.3, 0.852),
        (18, 18, 1.0, 0.995),
        (18, 18, 0.75, 0.995),
        (18, 18, 0.5, 0.979),
        (9, 9, 1.0, 0.984),
        (9, 9, 0.75, 0.971),
        (9, 9, 0.5, 0.960),
        (9, 9, 0.3, 0.685),
        (6, 6, 1.0, 0.963),
        (6, 6, 0.5, 0.950),
        (36, 4, 1.0, 0.973),
        (18, 6, 1.0, 0.990),
        (18, 6, 0.75, 0.980),
        (36, 6, 0.5, 0.984),
        (18, 9, 0.5, 0.977),
        (18, 6, 0.5, 0.967),
        (18, 4, 0.5, 0.954),
        (9, 4, 0.5, 0.940),
    ),
    "the default for checkpoints trained with --image_token_dropout",
)

# Trained with all image tokens.
UNTRAINED = Frontier(
    _points(
        (36, 36, 1.0, 1.0),
        (36, 36, 0.75, 1.0),
        (36, 36, 0.5, 0.980),
        (36, 36, 0.3, 0.852),
        (27, 27, 1.0, 0.987),
        (18, 18, 1.0, 0.927),
        (18, 18, 0.5, 0.923),
        (12, 12, 1.0, 0.885),
        (9, 9, 1.0, 0.880),
        (9, 9, 0.5, 0.865),
    ),
    "the default for checkpoints trained with all image tokens",
)


def default_frontier(config: Any) -> Frontier:
    """Return the frontier of a checkpoint without a table, by whether its config names ``image_token_dropout``."""
    return UNTRAINED if getattr(config, "image_token_dropout", None) is None else TRAINED
