"""Asks one checkpoint everything: loads it once, then answers every set of questions under every run, and times it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, GivenAnswer, check_source, note_source
from ada.eval.answering.answer_runs import Asked, answer_runs, open_answerer
from ada.eval.answering.batches import Answerer
from ada.eval.answering.latency_samples import TOKENS, LatencySamples, measure
from ada.eval.answering.model_specs import ModelSpec, Run, run_by_path
from ada.eval.questions.question_set import QuestionSet
from ada.eval.settings import SweepSettings
from ada.eval.stats.results import Part
from ada.latency.device_profile import DeviceFingerprint
from llava.eval.answering.questions import IMAGES


@dataclass(frozen=True)
class ModelOutcome:
    """What one checkpoint answered.

    ``family``: its kind of unit, H or L; ``device``: what it ran on; ``parts`` by run and set; ``latency`` by run,
    empty where nothing was timed.
    """

    family: str
    device: DeviceFingerprint
    parts: dict[Run, dict[str, Part]]
    latency: dict[Run, LatencySamples]


def answer_all(
    spec: ModelSpec, runs: Sequence[Run], sets: Sequence[QuestionSet], settings: SweepSettings
) -> ModelOutcome:
    """Answer all questions in all runs; answers that are in ``settings.folder`` are not given again.

    Raises ``OptionError`` where the folder holds answers of another checkpoint, or with other settings.
    """
    checkpoint = spec.fingerprint()
    sources = {questions.name: _source(checkpoint, questions, settings) for questions in sets}
    folder = settings.folder / "answers" / spec.slug
    for name, source in sources.items():
        check_source(folder / name, source)
    answerer = open_answerer(spec, runs, settings)
    model = answerer.model
    for name, source in sources.items():
        note_source(folder / name, source)
    names = {run: run.file_name(model.units, model.default_amount(run.budget)) for run in runs}
    parts: dict[Run, dict[str, Part]] = {run: {} for run in runs}
    for questions in sets:
        paths = {run: folder / questions.name / name for run, name in names.items()}
        for run, part in _answer_set(answerer, spec, questions, paths, settings).items():
            parts[run][questions.name] = part
    device, latency = DeviceFingerprint.of(model), {}
    if settings.timed_questions:
        folder = settings.folder / "times" / spec.slug
        _claim_times(folder, sources[sets[0].name], device, settings)
        paths = {run: folder / name for run, name in names.items()}
        latency = measure(answerer, sets[0], paths, settings.timed_questions, settings.seed)
    return ModelOutcome(model.units.kind, device, parts, latency)


def _answer_set(
    answerer: Answerer, spec: ModelSpec, questions: QuestionSet, paths: Mapping[Run, Path], settings: SweepSettings
) -> dict[Run, Part]:
    run_of = run_by_path(paths)
    files = {path: AnswerFile(path, GivenAnswer) for path in run_of}
    path_of = {run: path for path, run in run_of.items()}
    count = len(questions.items)
    with tqdm(total=len(files) * count, desc=f"{spec.label}, {questions.title}", unit=" answers") as progress:

        def waiting() -> Iterator[Asked]:
            for batch in answerer.batches(questions.items, settings.batch_size):
                runs = [run_of[path] for path, file in files.items() if not file.holds(batch.positions)]
                progress.update((len(files) - len(runs)) * len(batch.positions))
                if runs:
                    yield Asked(batch, runs)

        for run, answers in _answers(answerer, spec, [*path_of], waiting(), settings):
            files[path_of[run]].append(answers)
            progress.update(len(answers))
    parts = {path: Part.of(questions, file.finish(range(count))) for path, file in files.items()}
    return {run: parts[path] for run, path in paths.items()}


def _answers(
    answerer: Answerer, spec: ModelSpec, runs: Sequence[Run], waiting: Iterator[Asked], settings: SweepSettings
) -> Iterator[tuple[Run, list[GivenAnswer]]]:
    """Answer here, or on a Ray cluster, which gives answers in the order in which they are ready."""
    if settings.ray is None:
        for asked in waiting:
            yield from answer_runs(answerer, asked, settings.seed)
        return
    from ada.eval.answering.ray_answers import answers_of_cluster  # needs the extra ray

    yield from answers_of_cluster(spec, runs, waiting, settings)


def _source(checkpoint: str, questions: QuestionSet, settings: SweepSettings) -> dict[str, Any]:
    """Return what the answers depend on, budgets and planners aside."""
    return {
        "checkpoint": checkpoint,
        "questions": questions.fingerprint,
        IMAGES: questions.images,
        "--conv-mode": settings.conv_mode,
        "--batch-size": settings.batch_size,
        "--max-new-tokens": settings.max_new_tokens,
        "--seed": settings.seed,
    }


def _claim_times(folder: Path, source: dict[str, Any], device: DeviceFingerprint, settings: SweepSettings) -> None:
    """Note that the times in ``folder`` are this device's; raise ``OptionError`` where they are another's."""
    here = {name: value for name, value in asdict(device).items() if name != "model"}
    here["--narrow-cache-gb"] = settings.narrow_cache_gb  # also None: a note with another limit differs
    source = {**source, **here, "--timed-questions": settings.timed_questions, "tokens": TOKENS}
    check_source(folder, source)
    note_source(folder, source)
