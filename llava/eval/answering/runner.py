"""The one loop behind ``model_vqa*``: questions in, an answers file in upstream's record shape out.

A run that was stopped goes on where it was: the answers so far are in ``ANSWERS.part``, and every record says in its
``metadata`` which settings it was made with, so that answers of two runs never meet in one file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llava.errors import DataError, OptionError
from llava.eval.answering.batched_generation import Answerer, BatchAnswers, groups_by_length
from llava.eval.answering.questions import Question, get_chunk
from llava.eval.answering.resume import records_by_place
from llava.files.jsonl import Record, RecordFile
from llava.generation import SamplingParams, TokenClock
from llava.mm_utils import get_model_name_from_path
from llava.model.checkpoint.folder import local_folder
from llava.model.checkpoint.weights_io import find_weight_files
from llava.model.loaded_model import chosen_path, open_model
from llava.plugins import hooks, merged
from llava.utils import progress_only_on_terminals

SAMPLE = 1 << 16  # bytes at each end of a weight file that tell one training run's from another's


def flags_of(program: str, description: str | None, max_new_tokens: int = 1024) -> argparse.ArgumentParser:
    """LLaVA's flags for every program that answers a file of questions, this runner's own, and the plug-ins'."""
    parser = argparse.ArgumentParser(
        prog=f"python -m llava.eval.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--model-base", help="language model's folder, where --model-path holds a projector alone")
    parser.add_argument("--image-folder", type=Path, default=Path(), help="folder that pictures are named in")
    parser.add_argument("--question-file", type=Path, required=True, help="the questions")
    parser.add_argument("--answers-file", type=Path, required=True, help="where the answers go, JSON lines")
    parser.add_argument("--conv-mode", help="conversation template; default: the model's own")
    parser.add_argument("--num-chunks", type=int, default=1, help="how many processes share the questions")
    parser.add_argument("--chunk-idx", type=int, default=0, help="which share is this process's, from 0")
    parser.add_argument("--temperature", type=float, default=0.2, help="0 is greedy")
    parser.add_argument("--top_p", type=float, help="nucleus sampling, where the temperature is above 0")
    parser.add_argument("--num_beams", type=int, default=1, help="beams of a beam search")
    parser.add_argument("--max_new_tokens", type=int, default=max_new_tokens, help="longest answer, in tokens")
    parser.add_argument("--batch-size", type=int, default=1, help="questions at a time")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, and of the random planner")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    hooks().add_arguments(parser=parser, program=program)
    return parser


# Options that say where things are, or how the work is shared; the others decide what is answered.
NOT_SETTINGS = frozenset(
    "model_path model_base image_folder question_file answers_file num_chunks chunk_idx batch_size device".split()
)


def answer_questions(questions: Sequence[Question], args: argparse.Namespace) -> int:
    """Answer this chunk's part of ``questions`` into ``args.answers_file``; how many were still to answer.

    Raises ``OptionError`` for flags that cannot be used and for a file that holds another run's answers.
    """
    if not 0 <= args.chunk_idx < args.num_chunks or args.batch_size < 1:
        raise OptionError(
            f"--chunk-idx is {args.chunk_idx}, --num-chunks {args.num_chunks} and --batch-size {args.batch_size}; "
            "expected chunks counted from 0, and batches of 1 or more"
        )
    sampling = SamplingParams(args.temperature, args.top_p, args.num_beams, args.max_new_tokens)
    sampling.keywords()
    model_path = chosen_model(args.model_path)
    settings = _settings(vars(args), model_path)
    places = get_chunk(range(len(questions)), args.num_chunks, args.chunk_idx)
    file = RecordFile(args.answers_file)
    given = records_by_place(file, {place: questions[place] for place in places}, settings)
    waiting = [place for place in places if place not in given]
    if waiting:
        answerer, name = load_answerer(model_path, args), get_model_name_from_path(model_path)
        with tqdm(total=len(places), initial=len(given), desc=args.answers_file.stem, unit=" answers") as progress:
            for batch, answers in _batches(answerer, questions, waiting, args, sampling):
                records = [
                    _record(questions[place], answers.texts[row], name, settings, facts_of_row(answerer, answers, row))
                    for row, place in enumerate(batch)
                ]
                file.append(records)
                given.update(zip(batch, records, strict=True))
                progress.update(len(batch))
    file.finish(given[place] for place in places)
    return len(waiting)


def chosen_model(path: str | None) -> str:
    """The checkpoint to ask: the given one, else the bundled one. Raises ``OptionError`` where there is neither."""
    return chosen_path(path).rstrip("/")


def _settings(options: Mapping[str, Any], model_path: str) -> dict[str, Any]:
    """What the answers depend on beside the questions; unset options are left out."""
    chosen = {
        name: value if isinstance(value, (str, int, float, list)) else str(value)  # as they are stored, in JSON
        for name, value in options.items()
        if name not in NOT_SETTINGS and value not in (None, False)
    }
    return {"checkpoint": _fingerprint(local_folder(model_path)), **chosen}


def _fingerprint(folder: Path) -> str:
    """Of config and weights, of which the size and both ends are read: large files would take minutes."""
    digest = hashlib.sha256()
    for path in (folder / "config.json", *sorted(find_weight_files(folder))):
        if path.is_file():
            with path.open("rb") as stream:
                size = path.stat().st_size
                digest.update(f"{path.name} {size} ".encode() + stream.read(SAMPLE))
                stream.seek(max(0, size - SAMPLE))
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()[:16]


def load_answerer(model_path: str, args: argparse.Namespace, **loading: Any) -> Answerer:
    """The checkpoint, ready to answer. args: ``model_base``, ``device``, ``conv_mode`` and the plug-ins' options;
    loading: further keywords of ``load_pretrained_model``."""
    loaded = open_model({**vars(args), "model_path": model_path}, **loading)
    return Answerer(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template, loaded.options)


def _batches(
    answerer: Answerer,
    questions: Sequence[Question],
    waiting: Sequence[int],
    args: argparse.Namespace,
    how: SamplingParams,
) -> Iterator[tuple[list[int], BatchAnswers]]:
    """Places of a batch's questions, and its answers, batch by batch."""
    keywords = merged(hooks().generation_options(model=answerer.model, options={**vars(args), **answerer.options}))
    asked = [questions[place] for place in waiting]
    prompts = [answerer.ids(answerer.prompt(question.text, question.picture is not None)) for question in asked]
    for group in groups_by_length(prompts, args.batch_size):
        clock = TokenClock(None)  # reading the pictures counts
        images = [load() for load in (asked[i].picture for i in group) if load is not None]
        torch.manual_seed(args.seed + waiting[group[0]])  # by the place in the file: chunks and restarts change nothing
        pixels, sizes = answerer.pixels(images), [image.size for image in images] or None
        answers = answerer.answer([prompts[i] for i in group], pixels, sizes, how, keywords, clock)
        yield [waiting[i] for i in group], answers


def _record(question: Question, text: str, model_id: str, settings: dict[str, Any], facts: Mapping[str, Any]) -> Record:
    """Upstream's fields in upstream's order. ``answer_id`` is drawn from what is asked: no restart changes it."""
    seal = json.dumps([model_id, question.fields, settings], sort_keys=True, default=str)
    return {
        **question.fields,
        "text": text,
        **question.after,
        "answer_id": uuid.uuid5(uuid.NAMESPACE_OID, seal).hex,
        "model_id": model_id,
        "metadata": {"settings": settings, **facts},
    }


def facts_of_row(answerer: Answerer, answers: BatchAnswers, row: int) -> dict[str, Any]:
    """The batch's milliseconds, and the plug-ins' facts on the row: plan and operations."""
    facts = merged(hooks().describe_row(model=answerer.model, output=answers.output, row=row))
    timing = {**answers.timing, "new_tokens": answers.new_tokens[row], "batch_size": len(answers.texts)}
    return {**timing, **facts}


Read = Callable[[argparse.Namespace], Sequence[Question]]


def eval_questions(read: Read, args: argparse.Namespace) -> None:
    """Read the questions and answer them. Raises ``DataError`` where there are none."""
    progress_only_on_terminals()
    questions = read(args)
    if not questions:
        raise DataError(f"--question-file {args.question_file} holds no questions")
    answer_questions(questions, args)
