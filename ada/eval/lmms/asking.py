"""A task's questions to answers, by the same batches and prompts as the answer files' runner."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ada.eval.lmms.settings import Generation
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.answering.batched_generation import Answerer, groups_by_length
from llava.eval.answering.runner import row_metadata
from llava.generation import TokenClock, image_tag

REPEAT = 1_000_003  # between the seeds of a question's first and second draw: above the numbers of questions


@dataclass(frozen=True)
class Asked:
    """One question of a task: its text, how to answer, and what opens its pictures."""

    task: str
    doc_id: int
    context: str
    how: Generation
    visuals: Callable[[], Any]


@dataclass(frozen=True)
class Given:
    """Its answer; ``facts`` are those of an answers file's record, ``seconds`` its part of its batch's time."""

    text: str
    facts: Mapping[str, Any]
    seconds: float


def pictures_of(visuals: Any, place: str) -> list[Image.Image]:
    """What a task's ``doc_to_visual`` gave, as pictures. Raises ``DataError`` for films and sounds."""
    pictures = [visual for visual in (visuals or []) if visual is not None]
    for visual in pictures:
        if not isinstance(visual, Image.Image):
            raise DataError(f"{place} shows a {type(visual).__name__}; ada_llava sees pictures only")
    return [picture.convert("RGB") for picture in pictures]


def prompt_of(answerer: Answerer, context: str, pictures: int, place: str, answer: str | None = None) -> str:
    """The prompt, with the answer where one is given. The pictures' tags go in front, unless the task has put them in
    its text. Raises ``DataError`` where it has put in more, or fewer, than there are pictures."""
    tags = context.count(DEFAULT_IMAGE_TOKEN)
    if not tags:
        return answerer.prompt(context, pictures, answer)
    if tags != pictures:
        raise DataError(f"{place} has {tags} image tags in its text and {pictures} pictures; expected as many of each")
    return answerer.prompt(context.replace(DEFAULT_IMAGE_TOKEN, image_tag(answerer.model)), 0, answer)


def answers(
    answerer: Answerer, questions: Sequence[Asked], batch_size: int, keywords: Mapping[str, Any], seed: int
) -> Iterator[tuple[int, Given]]:
    """Every question's place and answer, batch by batch. keywords: the plug-ins', for ``generate``.

    A batch's draws are seeded by the number of its first question in the task, as the runner's are by its place in
    the file, and by how often it has been asked before.
    """
    repeats: Counter[tuple[str, int]] = Counter()
    for group in _groups(answerer, questions, batch_size):
        asked = [questions[place] for place in group]
        first = asked[0]
        torch.manual_seed(seed + first.doc_id + REPEAT * repeats[first.task, first.doc_id])
        repeats.update((question.task, question.doc_id) for question in asked)
        yield from zip(group, _batch(answerer, asked, keywords), strict=True)


def _groups(answerer: Answerer, questions: Sequence[Asked], size: int) -> Iterator[list[int]]:
    """Places of the questions of each batch: of one way of generating, and of like length."""
    alike: defaultdict[Generation, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        alike[question.how].append(place)
    for places in alike.values():
        prompts = [answerer.ids(answerer.prompt(questions[place].context, 0)) for place in places]
        for group in groups_by_length(prompts, size):
            yield [places[i] for i in group]


def _batch(answerer: Answerer, asked: Sequence[Asked], keywords: Mapping[str, Any]) -> list[Given]:
    started, clock = time.perf_counter(), TokenClock(None)  # reading the pictures counts
    prompts: list[list[int]] = []
    images: list[Image.Image] = []
    for question in asked:
        place = f"question {question.doc_id} of {question.task}"
        own = pictures_of(question.visuals(), place)
        prompts.append(answerer.ids(prompt_of(answerer, question.context, len(own), place)))
        images += own
    how, sizes = asked[0].how, [image.size for image in images] or None
    found = answerer.answer(prompts, answerer.pixels(images), sizes, how.sampling, keywords, clock, how.stops)
    seconds = (time.perf_counter() - started) / len(asked)
    return [Given(text, row_metadata(answerer, found, row), seconds) for row, text in enumerate(found.texts)]
