"""Reads which checkpoints are compared, and under which planners and budgets each one answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ada.budget import LatencyBudget
from ada.frontier.store import FILE_NAME
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, ImageTokens
from ada.scheduling.planners import PLANNERS
from ada.scheduling.units import Units
from llava.errors import OptionError
from llava.model.checkpoint.adapter_chain import folders_of, weight_files
from llava.model.checkpoint.folder import local_folder
from llava.model.checkpoint.weights_io import read_json


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint under a label; ``planner``, where it is set, is the only one that it answers under."""

    label: str
    folder: Path
    planner: str | None

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Read ``DIR``, ``LABEL=DIR`` or ``LABEL=DIR:PLANNER``.

        A checkpoint that was trained under an untrained planner names it in its config, and answers under that one.
        """
        label, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():
            label, path = "", text
        before, _, last = path.rpartition(":")
        path, planner = (before, last) if before and last in PLANNERS else (path, None)
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
        """Hash config, weights and a measured frontier, by which ``auto`` chooses: what other answers come from."""
        digest = hashlib.sha256()
        files = [path for one in folders_of(self.folder) for path in (one / "config.json", *weight_files(one))]
        for file in filter(Path.is_file, [*files, self.folder / FILE_NAME]):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class TokenSetting:
    """How many image tokens a run reads, and which ones; both None as the model answers by default."""

    image_tokens: ImageTokens | None = None
    selector: str | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.image_tokens, self.selector) if part is not None)

    @property
    def slug(self) -> str:
        """The setting as a part of a file's name."""
        return re.sub(r"[^\w.+]+", "-", str(self).replace("%", "pc"))


AS_THE_MODEL = TokenSetting()


@dataclass(frozen=True)
class Run:
    """A model under one planner, one budget and one setting of image tokens: one row of the tables."""

    label: str
    planner: str
    budget: LatencyBudget
    tokens: TokenSetting = AS_THE_MODEL

    @property
    def name(self) -> str:
        """Its model, planner and image tokens."""
        return ", ".join(part for part in (self.label, self.planner, str(self.tokens)) if part)

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of ``generate``."""
        tokens = {"image_tokens": self.tokens.image_tokens, "token_selector": self.tokens.selector}
        given = {name: value for name, value in tokens.items() if value is not None}
        return {"latency_budget": self.budget, "planner": self.planner, **given}

    @property
    def budget_text(self) -> str:
        """The budget as file names and tables have it: 1, 0.85."""
        return f"{self.budget.fraction:g}"

    def file_name(self, units: Units, amount: ImageTokens = ALL_IMAGE_TOKENS) -> str:
        """Name the file of its answers.

        amount: of image tokens, as the model answers by default. Granted all tunable units, or none of them, every
        planner makes the same plan; such runs share their answers. Not where the amount is ``auto``: leaving out image
        tokens pays for units where the budget alone grants none.
        """
        granted = units.granted(self.budget.fraction)
        same_plan = granted == units.tunable or (granted == 0 and not amount.auto)
        free = self.tokens != AS_THE_MODEL or not same_plan
        planner, tokens = self.planner if free else "any", f"-{self.tokens.slug}" if str(self.tokens) else ""
        return f"{planner}-{self.budget_text}{tokens}.jsonl"


def parse_model_specs(texts: Sequence[str]) -> list[ModelSpec]:
    """Read all of ``--model-path``. Raises ``OptionError`` where two labels would share a row or a folder."""
    specs = [ModelSpec.parse(text) for text in texts]
    slugs = [spec.slug for spec in specs]
    if twice := [spec.label for spec in specs if slugs.count(spec.slug) > 1]:
        raise OptionError(f"--model-path names {twice[0]!r} twice; give each model another label, as LABEL=DIR")
    return specs


def runs_of(
    spec: ModelSpec,
    planners: Sequence[str],
    budgets: Sequence[LatencyBudget],
    tokens: Sequence[TokenSetting] = (AS_THE_MODEL,),
) -> list[Run]:
    """Combine every planner with every setting of image tokens and every budget."""
    names = planners if spec.planner is None else (spec.planner,)
    return [Run(spec.label, planner, budget, own) for planner in names for own in tokens for budget in budgets]


def token_settings(image_tokens: Sequence[str], selectors: Sequence[str]) -> list[TokenSetting]:
    """Combine amounts of image tokens with selectors, which make no difference where all tokens are read.

    Without amounts or selectors the model answers by default. Raises OptionError for a text that is no amount.
    """
    amounts: list[ImageTokens | None] = [ImageTokens.parse(text) for text in image_tokens]
    names: list[str | None] = list(selectors)
    settings = [
        TokenSetting(amount, None if amount == ALL_IMAGE_TOKENS else name)
        for amount in amounts or [None]
        for name in names or [None]
    ]
    return list(dict.fromkeys(settings))


def run_by_path(paths: Mapping[Run, Path]) -> dict[Path, Run]:
    """Return the run that fills each file: of runs that share one, the first."""
    first: dict[Path, Run] = {}
    for run, path in paths.items():
        first.setdefault(path, run)
    return first
