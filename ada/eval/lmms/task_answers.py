"""Answers a task's questions in the same batches and with the same prompts as the runner of ``llava.eval``."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ada.eval.lmms.settings import GenerationSettings
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.answering.batched_generation import Answerer, groups_by_length
from llava.eval.answering.runner import row_metadata
from llava.files.images import load_image
from llava.generation import image_tag
from llava.token_clock import TokenClock

REPEAT = 1_000_003  # between the seeds of a question's first and second draw: above the numbers of questions


@dataclass(frozen=True)
class TaskQuestion:
    """One question of a task: its text, how to answer it, and what opens its images."""

    task: str
    doc_id: int
    context: str
    generation: GenerationSettings
    visuals: Callable[[], Iterable[object] | None]

    @property
    def title(self) -> str:
        """What error messages call the question."""
        return f"question {self.doc_id} of {self.task}"


@dataclass(frozen=True)
class TaskAnswer:
    """An answer, with the ``metadata`` of an answers file's record and its part of its batch's time."""

    text: str
    metadata: Mapping[str, Any]
    seconds: float


def images_of(visuals: Iterable[object] | None, title: str) -> list[Image.Image]:
    """Return what a task's ``doc_to_visual`` gave, as RGB images.

    title: of the question, for the message. Raises ``DataError`` for video and audio.
    """
    images = []
    for visual in visuals or []:
        if visual is None:
            continue
        if not isinstance(visual, Image.Image):
            raise DataError(f"{title} shows a {type(visual).__name__}; ada_llava reads images only")
        images.append(load_image(visual))
    return images


def prompt_of(answerer: Answerer, context: str, num_images: int, title: str, answer: str | None = None) -> str:
    """Return the prompt, with the answer where one is given.

    The images' tags come first, unless the task has put them in its text. title: of the question, for the message.
    Raises ``DataError`` where the text has another number of tags than there are images.
    """
    tags = context.count(DEFAULT_IMAGE_TOKEN)
    if not tags:
        return answerer.prompt(context, num_images, answer)
    if tags != num_images:
        raise DataError(f"{title} has {tags} image tags in its text and {num_images} images; expected as many of each")
    return answerer.prompt(context.replace(DEFAULT_IMAGE_TOKEN, image_tag(answerer.model)), 0, answer)


def answers(
    answerer: Answerer, questions: Sequence[TaskQuestion], batch_size: int, keywords: Mapping[str, Any], seed: int
) -> Iterator[tuple[int, TaskAnswer]]:
    """Yield every question's position and answer, batch by batch. keywords: the plug-ins', for ``generate``.

    A batch's draws are seeded by the number of its first question in the task, as the runner's are by its position in
    the file, and by how often it has been asked before.
    """
    repeats: Counter[tuple[str, int]] = Counter()
    for group in _groups(answerer, questions, batch_size):
        batch = [questions[position] for position in group]
        first = batch[0]
        torch.manual_seed(seed + first.doc_id + REPEAT * repeats[first.task, first.doc_id])
        repeats.update((question.task, question.doc_id) for question in batch)
        yield from zip(group, _answer_batch(answerer, batch, keywords), strict=True)


def _groups(answerer: Answerer, questions: Sequence[TaskQuestion], size: int) -> Iterator[list[int]]:
    """Yield the positions of each batch's questions: with equal generation settings, and of similar length."""
    alike: defaultdict[GenerationSettings, list[int]] = defaultdict(list)
    for position, question in enumerate(questions):
        alike[question.generation].append(position)
    for positions in alike.values():
        prompts = [answerer.ids(answerer.prompt(questions[position].context, 0)) for position in positions]
        answerer.check_lengths(prompts, [questions[position].title for position in positions])
        for group in groups_by_length(prompts, size):
            yield [positions[i] for i in group]


def _answer_batch(answerer: Answerer, batch: Sequence[TaskQuestion], keywords: Mapping[str, Any]) -> list[TaskAnswer]:
    started, clock = time.perf_counter(), TokenClock(None)  # opening the images counts
    prompts: list[list[int]] = []
    images: list[Image.Image] = []
    for question in batch:
        own = images_of(question.visuals(), question.title)
        prompts.append(answerer.ids(prompt_of(answerer, question.context, len(own), question.title)))
        images += own
    how, sizes = batch[0].generation, [image.size for image in images] or None
    titles, pixels = [question.title for question in batch], answerer.pixels(images, prompts)
    found = answerer.answer(prompts, pixels, sizes, how.sampling, keywords, clock, how.stops, titles)
    seconds = (time.perf_counter() - started) / len(batch)
    return [TaskAnswer(text, row_metadata(answerer, found, row), seconds) for row, text in enumerate(found.texts)]
