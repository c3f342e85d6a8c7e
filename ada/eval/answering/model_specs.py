"""What is compared: checkpoints, each with the planners and budgets it answers under."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ada.budget import LatencyBudget
from ada.scheduling.planners import PLANNERS
from llava.errors import OptionError
from llava.model.checkpoint.folder import local_folder
from llava.model.checkpoint.weights_io import find_weight_files, read_json


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint under a label; ``planner`` where it is to answer under that one alone."""

    label: str
    folder: Path
    planner: str | None

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Read ``DIR``, ``LABEL=DIR``, ``LABEL=DIR:PLANNER``.

        A checkpoint that was trained under an untrained planner says so in its config, and answers under that one.
        """
        label, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():
            label, path = "", text
        front, _, last = path.rpartition(":")
        path, planner = (front, last) if front and last in PLANNERS else (path, None)
        folder = local_folder(path)
        trained_under = read_json(folder / "config.json").get("planner")
        if planner is None and trained_under not in (None, "learned"):
            planner = trained_under
        return cls(label or folder.resolve().name, folder, planner)

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        return re.sub(r"[^\w.+-]+", "-", self.label)

    def fingerprint(self) -> str:
        """Of config and weights: another training run under the same name has another."""
        digest = hashlib.sha256()
        for file in (self.folder / "config.json", *sorted(find_weight_files(self.folder))):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    label: str
    planner: str
    budget: LatencyBudget

    def file_name(self, units: Any) -> str:
        """Where its answers go. Granted all that is tunable, or nothing of it, every planner makes the same plan;
        such runs share their answers."""
        free = 0 < units.granted(self.budget.fraction) < units.tunable
        return f"{self.planner if free else 'any'}-{self.budget}.jsonl"


def parse_contestants(texts: Sequence[str]) -> list[ModelSpec]:
    """All of ``--model-path``. Raises ``OptionError`` where two would be one row."""
    contestants = [ModelSpec.parse(text) for text in texts]
    slugs = [contestant.slug for contestant in contestants]
    if twice := [c.label for c in contestants if slugs.count(c.slug) > 1]:
        raise OptionError(f"--model-path names {twice[0]!r} twice; tell them apart as LABEL=DIR")
    return contestants


def runs_of(contestant: ModelSpec, planners: Sequence[str], budgets: Sequence[LatencyBudget]) -> list[Run]:
    """Every planner at every budget."""
    names = planners if contestant.planner is None else (contestant.planner,)
    return [Run(contestant.label, planner, budget) for planner in names for budget in budgets]
