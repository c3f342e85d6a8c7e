"""Answers a sweep's batches on a Ray cluster: as many at once as it has room for, again where a worker is lost or slow.

Every machine of the cluster has this project, and the same files under the same paths.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.answer_runs import Asked, answer_runs, open_answerer
from ada.eval.answering.batches import Answerer
from ada.eval.answering.model_specs import ModelSpec, Run
from ada.eval.settings import SweepSettings
from llava.errors import LlavaError, OptionError
from llava.utils import pick_device

TRIES = 5  # of a batch whose worker is lost, after the first
SLOW, POLL_S = 3.0, 1.0  # times the median batch's time, after which a batch is asked elsewhere, too

Answers = list[tuple[Run, list[GivenAnswer]]]


def answers_of_cluster(
    spec: ModelSpec, runs: Sequence[Run], waiting: Iterator[Asked], settings: SweepSettings
) -> Iterator[tuple[Run, list[GivenAnswer]]]:
    """Yield the answers of batches as they are ready. Raises ``OptionError`` where there is no cluster."""
    connect(str(settings.ray))
    resource = "GPU" if pick_device(settings.device).startswith("cuda") else "CPU"
    task = ray.remote(_answer).options(**{f"num_{resource.lower()}s": 1}, max_retries=TRIES)
    common = ray.put((Path.cwd(), spec, tuple(runs), settings, spec.fingerprint()))
    running: dict[ray.ObjectRef, tuple[Asked, float]] = {}
    ended: dict[int, float] = {}  # seconds of the batches that are answered, by their numbers

    def ask(asked: Asked) -> None:
        running[task.remote(common, asked)] = asked, time.monotonic()

    while True:
        at_once = max(1, int(ray.cluster_resources().get(resource, 0)))
        while len(running) < at_once and (asked := next(waiting, None)) is not None:
            ask(asked)
        if not running:
            return
        ready, _ = ray.wait([*running], timeout=POLL_S)
        for reference in ready:
            asked, since = running.pop(reference)
            if asked.batch.number not in ended:
                ended[asked.batch.number] = time.monotonic() - since
                yield from _result(reference)
        if not ready and (late := _late(running, ended)) is not None:
            ask(late)
        for reference in [ref for ref, (asked, _) in running.items() if asked.batch.number in ended]:
            ray.cancel(reference)
            del running[reference]


def connect(address: str) -> None:
    """Connect to a cluster, once a process. Raises ``OptionError`` where there is none."""
    if ray.is_initialized():
        return
    try:
        ray.init(address, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise OptionError(f"--ray {address}: {error}; start one with `ray start --head`") from error


def _late(running: dict[ray.ObjectRef, tuple[Asked, float]], ended: dict[int, float]) -> Asked | None:
    """A batch that takes much longer than others did, and runs once; None where there is none."""
    numbers = [asked.batch.number for asked, _ in running.values()]
    limit = SLOW * statistics.median(ended.values()) if ended else float("inf")
    found = (asked for asked, since in running.values() if time.monotonic() - since > limit)
    return next((asked for asked in found if numbers.count(asked.batch.number) == 1), None)


def _result(reference: ray.ObjectRef) -> Answers:
    try:
        answers: Answers = ray.get(reference)
        return answers
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        message = f"a batch was lost {TRIES + 1} times ({type(error).__name__}: {error}); the same command goes on"
        raise LlavaError(message) from error


def _answer(common: tuple[Path, ModelSpec, tuple[Run, ...], SweepSettings, str], asked: Asked) -> Answers:
    """Answer on a worker, which keeps its checkpoint."""
    folder, spec, runs, settings, checkpoint = common
    os.chdir(folder)
    return [*answer_runs(_answerer(spec, runs, settings, checkpoint), asked, settings.seed)]


@functools.lru_cache(maxsize=1)
def _answerer(spec: ModelSpec, runs: tuple[Run, ...], settings: SweepSettings, checkpoint: str) -> Answerer:
    if spec.fingerprint() != checkpoint:
        raise OptionError(f"{spec.folder} on {os.uname().nodename} is not the checkpoint that the sweep began with")
    return open_answerer(spec, runs, settings)
