"""A checkpoint asked everything: one load, then every set of questions under every run, then its times."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, check_source, note_source
from ada.eval.answering.batches import Answerer
from ada.eval.answering.latency_samples import TOKENS, LatencySamples, measure
from ada.eval.answering.model_specs import ModelSpec, Run
from ada.eval.questions.question_set import QuestionSet
from ada.eval.stats.results import Part
from ada.latency.device_profile import DeviceFingerprint
from ada.overlay import prepare_model


@dataclass(frozen=True)
class Outcome:
    """One checkpoint's. ``family``: its kind of unit; ``parts`` by run and set; ``times`` by run, where taken."""

    family: str
    surroundings: DeviceFingerprint
    parts: dict[Run, dict[str, Part]]
    times: dict[Run, LatencySamples]


def ask(
    contestant: ModelSpec, runs: Sequence[Run], sets: Sequence[QuestionSet], options: argparse.Namespace
) -> Outcome:
    """Answers to all questions in all runs, from ``--out`` where they are there."""
    checkpoint = contestant.fingerprint()
    sources = {questions.name: _source(checkpoint, questions, options) for questions in sets}
    folder = options.out / "answers" / contestant.slug
    for name, source in sources.items():
        check_source(folder / name, source)
    answerer = Answerer(contestant.folder, options.conv_mode, options.max_new_tokens, options.device)
    for run in runs:
        prepare_model(model=answerer.model, options={"latency_budget": run.budget, "planner": run.planner})
    for name, source in sources.items():
        note_source(folder / name, source)
    names = {run: run.file_name(answerer.model.units) for run in runs}
    parts: dict[Run, dict[str, Part]] = {run: {} for run in runs}
    for questions in sets:
        paths = {run: folder / questions.name / name for run, name in names.items()}
        for run, part in _answer_set(answerer, contestant.label, questions, paths, options).items():
            parts[run][questions.name] = part
    surroundings, times = DeviceFingerprint.of(answerer.model), {}
    if options.timed_questions:
        here = {name: value for name, value in asdict(surroundings).items() if name != "model"}
        folder = options.out / "times" / contestant.slug
        taken = {"--timed-questions": options.timed_questions, "tokens": TOKENS}
        source = {**sources[sets[0].name], **here, **taken}
        check_source(folder, source)
        note_source(folder, source)
        paths = {run: folder / name for run, name in names.items()}
        times = measure(answerer, sets[0], paths, options.timed_questions, options.seed)
    return Outcome(answerer.model.units.kind, surroundings, parts, times)


def _answer_set(
    answerer: Answerer, label: str, questions: QuestionSet, paths: dict[Run, Path], options: argparse.Namespace
) -> dict[Run, Part]:
    files = {path: AnswerFile(path) for path in paths.values()}
    asked = {path: run for run, path in reversed(paths.items())}  # runs may share a file: the first one is answered
    count = len(questions.items)
    with tqdm(total=len(files) * count, desc=f"{label}, {questions.title}", unit=" answers") as progress:
        # Batches outside, runs inside: a batch's pictures are read once, and none is kept.
        for batch in answerer.batches(questions.items, options.batch_size):
            waiting = [file for file in files.values() if not file.holds(batch.places)]
            if waiting:
                answerer.see(batch)
            for file in waiting:
                run = asked[file.path]
                file.append(answerer.answer(batch, run.planner, run.budget, options.seed))
            batch.pixels = None
            progress.update(len(files) * len(batch.places))
    parts = {path: Part.of(questions, file.finish(range(count))) for path, file in files.items()}
    return {run: parts[path] for run, path in paths.items()}


def _source(checkpoint: str, questions: QuestionSet, options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on, budgets and planners aside."""
    return {
        "checkpoint": checkpoint,
        "questions": questions.fingerprint,
        "--conv-mode": options.conv_mode,
        "--batch-size": options.batch_size,
        "--max-new-tokens": options.max_new_tokens,
        "--seed": options.seed,
    }
