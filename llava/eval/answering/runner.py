"""Answers a list of questions into an answer file of upstream's record shape; the loop of all ``model_vqa*``.

A run that was stopped continues where it was: the answers so far are in ``ANSWERS.part``, and every record says in its
``metadata`` which settings it was made with, so that answers of two runs are never mixed in one file.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from llava.errors import DataError
from llava.eval.answering.batched_generation import Answerer, BatchAnswers, groups_by_length
from llava.eval.answering.questions import IMAGES, Question, get_chunk, images_fingerprint
from llava.eval.answering.resume import existing_answers
from llava.eval.answering.settings import RunSettings, recorded_settings
from llava.eval.answering.text_only import TextOnlyModel
from llava.files.jsonl import Record, RecordFile
from llava.flags import from_flags
from llava.mm_utils import get_model_name_from_path
from llava.model.loaded_model import chosen_path, open_model
from llava.plugins import hooks, merged
from llava.token_clock import TokenClock
from llava.utils import progress_only_on_terminals


def run(questions: Sequence[Question], args: argparse.Namespace) -> None:
    """Answer ``questions`` as a program's parsed flags say. Raises ``DataError`` where there are none."""
    progress_only_on_terminals()
    settings = from_flags(RunSettings, args)
    if not questions:
        raise DataError(f"--question-file {settings.question_file} holds no questions")
    answer_questions(questions, settings, vars(args))


def answer_questions(questions: Sequence[Question], settings: RunSettings, options: Mapping[str, Any]) -> int:
    """Answer this process's part of ``questions`` into the answer file; return how many were still to answer.

    options: every flag of the program by name, for the plug-ins and the records' metadata. Raises ``OptionError`` for
    flags that cannot be used and for a file that holds another run's answers.
    """
    settings.check()
    model_path = chosen_model(settings.model_path)
    recorded = recorded_settings(options, model_path)
    if images := images_fingerprint(questions):  # of all chunks' questions: the same in each of their files
        recorded[IMAGES] = images
    indices = get_chunk(range(len(questions)), settings.num_chunks, settings.chunk_idx)
    file = RecordFile(settings.answers_file)
    answered = existing_answers(file, {index: questions[index] for index in indices}, recorded)
    waiting = [index for index in indices if index not in answered]
    if waiting:
        name = get_model_name_from_path(model_path)
        answerer = load_answerer(
            model_path,
            model_base=settings.model_base,
            device=settings.device,
            conv_mode=settings.conv_mode,
            options=options,
        )
        given = {**options, **answerer.options}
        keywords = merged(hooks().generation_options(model=answerer.model, options=given, tokenizer=answerer.tokenizer))
        batches = _answer_batches(answerer, questions, waiting, settings, keywords)
        stem = settings.answers_file.stem
        with tqdm(total=len(indices), initial=len(answered), desc=stem, unit=" answers") as progress:
            for batch, answers in batches:
                records = [
                    _record(questions[index], answers.texts[row], name, recorded, row_metadata(answerer, answers, row))
                    for row, index in enumerate(batch)
                ]
                file.append(records)
                answered.update(zip(batch, records, strict=True))
                progress.update(len(batch))
    file.finish(answered[index] for index in indices)
    return len(waiting)


def chosen_model(path: str | None) -> str:
    """Return ``path``, or the bundled checkpoint for None. Raises ``OptionError`` where there is neither."""
    return chosen_path(path).rstrip("/")


def load_answerer(
    model_path: str,
    *,
    model_base: str | None = None,
    device: str | None = None,
    conv_mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    **loading: Any,
) -> Answerer:
    """Load a checkpoint, ready to answer.

    device: None takes an accelerator where there is one. conv_mode: None takes the template that the model was trained
    with. options: the plug-ins' options by name. loading: further keywords of ``load_pretrained_model``.
    """
    flags = {"model_path": model_path, "model_base": model_base, "device": device, "conv_mode": conv_mode}
    loaded = open_model({**(options or {}), **flags}, **loading)
    model: Any = loaded.model if hasattr(loaded.model, "get_vision_tower") else TextOnlyModel(loaded.model)
    return Answerer(model, loaded.tokenizer, loaded.image_processor, loaded.template, loaded.options)


def _answer_batches(
    answerer: Answerer,
    questions: Sequence[Question],
    waiting: Sequence[int],
    settings: RunSettings,
    keywords: Mapping[str, Any],
) -> Iterator[tuple[list[int], BatchAnswers]]:
    """Yield, batch by batch, the indices of its questions and their answers. keywords: of ``generate``."""
    asked = [questions[index] for index in waiting]
    prompts = [answerer.ids(answerer.prompt(question.text, question.open_image is not None)) for question in asked]
    titles = [f"question {question.question_id!r}" for question in asked]
    answerer.check_lengths(prompts, titles)
    for group in groups_by_length(prompts, settings.batch_size):
        clock = TokenClock(None)  # opening the images counts
        openers = [open_image for open_image in (asked[i].open_image for i in group) if open_image is not None]
        images = [open_image(turn_by_exif=settings.exif_orientation) for open_image in openers]
        torch.manual_seed(settings.seed + waiting[group[0]])  # by the index in the file: the same in any chunk or run
        batch, own = [prompts[i] for i in group], [titles[i] for i in group]
        pixels, sizes = answerer.pixels(images, batch), [image.size for image in images] or None
        answers = answerer.answer(batch, pixels, sizes, settings.sampling, keywords, clock, titles=own)
        yield [waiting[i] for i in group], answers


def _record(
    question: Question, text: str, model_id: str, settings: dict[str, Any], metadata: Mapping[str, Any]
) -> Record:
    """Make a record of upstream's fields in upstream's order.

    ``answer_id`` is derived from what is asked, so that it is the same in a run that was resumed.
    """
    seal = json.dumps([model_id, question.fields, settings], sort_keys=True, default=str)
    return {
        **question.fields,
        question.answer_field: text,
        **question.after,
        "answer_id": uuid.uuid5(uuid.NAMESPACE_OID, seal).hex,
        "model_id": model_id,
        "metadata": {"settings": settings, **metadata},
    }


def row_metadata(answerer: Answerer, answers: BatchAnswers, row: int) -> dict[str, Any]:
    """Return one answer's metadata: its batch's timing in milliseconds, and what plug-ins add (plan, operations)."""
    added = merged(hooks().describe_row(model=answerer.model, output=answers.output, row=row))
    timing = {**answers.timing, "new_tokens": answers.new_tokens[row], "batch_size": len(answers.texts)}
    return {**timing, **added}
