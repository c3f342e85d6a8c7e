"""Answers one batch of questions under several runs, which share the batch's images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.batches import Answerer, Batch
from ada.eval.answering.model_specs import ModelSpec, Run
from ada.eval.settings import SweepSettings
from ada.options import no_scheduler, prepare_model
from ada.protocols import is_adaptive


@dataclass(frozen=True)
class Asked:
    """A batch, and the runs that are to answer it."""

    batch: Batch
    runs: Sequence[Run]


def open_answerer(spec: ModelSpec, runs: Sequence[Run], settings: SweepSettings) -> Answerer:
    """Load a checkpoint, and prepare it for runs. Raises ``OptionError`` where it cannot answer under one of them."""
    limit = settings.narrow_cache_gb
    answerer = Answerer(spec.folder, settings.conv_mode, settings.max_new_tokens, settings.device, limit)
    for run in runs:
        prepare_model(model=answerer.model, options={**run.options(), "narrow_cache_gb": limit})
    if not is_adaptive(answerer.model):  # a run without budget and planner
        raise no_scheduler(answerer.model)
    return answerer


def answer_runs(answerer: Answerer, asked: Asked, seed: int) -> Iterator[tuple[Run, list[GivenAnswer]]]:
    """Answer a batch under one run after the other; its images are read once, and not kept."""
    images = answerer.read_images(asked.batch)
    for run in asked.runs:
        yield run, answerer.answer(asked.batch, images, run.options(), seed)
