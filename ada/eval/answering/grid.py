"""Answers questions at a grid of settings, of image tokens and units, in batches; keeps every answer on the disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, GivenRecord
from ada.eval.answering.batches import Answerer, Batch, BatchImages, title_of
from ada.eval.questions.question_set import QuestionSet
from ada.image_tokens.amount import ImageTokens


@dataclass(frozen=True)
class GridSetting:
    """One setting: how many image tokens are read, and how many tunable units run."""

    amount: ImageTokens
    num_units: int

    @property
    def file_name(self) -> str:
        """The name of its answers' file: ``50pc-25pc-12.jsonl`` for 50%/25% and 12 units."""
        amount = re.sub(r"[^\w.]+", "-", str(self.amount).replace("%", "pc"))
        return f"{amount}-{self.num_units}.jsonl"


@dataclass(frozen=True)
class GivenText(GivenRecord):
    """One answer, and whether it is right."""

    question_id: Any
    text: str
    right: bool


@dataclass(frozen=True)
class GridAnswerer:
    """Answers batches under a setting.

    options: keywords of ``generate`` for all settings. seed: with the batch's number, of a random planner's draws.
    """

    answerer: Answerer
    options: Mapping[str, Any]
    seed: int = 0

    def answer(self, batch: Batch, images: BatchImages, setting: GridSetting) -> list[GivenText]:
        """Answer a batch, in its order."""
        torch.manual_seed(self.seed + batch.number)
        granted = torch.full((len(batch.items),), setting.num_units)
        keywords = {**self.options, "image_tokens": setting.amount, "granted_units": granted}
        asked, titles = self.answerer.asked, [title_of(item) for item in batch.items]
        given = asked.answer(
            batch.prompts, images.pixels, images.sizes, self.answerer.sampling, keywords, titles=titles
        )
        return [
            GivenText(position, item.question.question_id, text, item.is_right(text))
            for position, item, text in zip(batch.positions, batch.items, given.texts, strict=True)
        ]


def answer_grid(
    grid: GridAnswerer, questions: QuestionSet, settings: Sequence[GridSetting], folder: Path, batch_size: int
) -> dict[GridSetting, list[GivenText]]:
    """Answer all questions at every setting; answers that are in ``folder`` are not given again."""
    files = {setting: AnswerFile(folder / setting.file_name, GivenText) for setting in settings}
    count = len(questions.items)
    with tqdm(total=len(files) * count, desc=questions.title, unit=" answers") as progress:
        # Batches outside, settings inside: a batch's images are read once, and not kept.
        for batch in grid.answerer.batches(questions.items, batch_size):
            waiting = {setting: file for setting, file in files.items() if not file.holds(batch.positions)}
            images = grid.answerer.read_images(batch) if waiting else None
            for setting, file in waiting.items():
                file.append(grid.answer(batch, images, setting))  # type: ignore[arg-type]  # read where any waits
            progress.update(len(files) * len(batch.positions))
    return {setting: file.finish(range(count)) for setting, file in files.items()}
