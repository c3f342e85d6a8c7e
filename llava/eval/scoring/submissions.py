"""Converts answers into the form that each benchmark's scorer or server reads.

The programs are ``scripts/convert_*.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.eval_mmbench.table import Row
from llava.eval.m4c_evaluator import EvalAIAnswerProcessor
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.files.fields import required_field, shown, typed
from llava.files.jsonl import Record

SHORT_PROMPT = "Answer the question using a single word or phrase."
YES_NO = "Please answer yes or no."
MMBENCH_LEFT_OUT = ("hint", "category", "source", "image", "comment", "l2-category")
MMBENCH_PREDICTION = 6  # the prediction's column
RESULTS = "the result file"
LETTERS = ("A", "B", "C", "D")  # of SEED-Bench's choices
ANNOTATION = "the annotation file"


def gqa_predictions(answers: Sequence[Record]) -> list[dict[str, Any]]:
    """Convert answers for GQA's ``eval.py``: lower case, without a full stop."""
    found = by_id(answers, "question_id", RESULTS).values()
    return [{"questionId": r["question_id"], "prediction": text_of(r, RESULTS).rstrip(".").lower()} for r in found]


def vqav2_upload(answers: Sequence[Record], test_split: Sequence[Record]) -> list[dict[str, Any]]:
    """Convert answers for VQAv2's server: one to every question of the test split, empty for those not asked.

    Raises ``DataError`` where an answer's question is not in the split.
    """
    given = by_id(answers, "question_id", RESULTS)
    asked = by_id(test_split, "question_id", "the test split")
    check_same({*asked, *given}, asked, RESULTS)
    same = EvalAIAnswerProcessor()
    texts = {key: same(text_of(answer, RESULTS)) for key, answer in given.items()}
    return [{"question_id": own["question_id"], "answer": texts.get(key, "")} for key, own in asked.items()]


def vizwiz_upload(answers: Sequence[Record], questions: Sequence[Record]) -> list[dict[str, Any]]:
    """Convert answers for VizWiz's server: one to every image.

    Raises ``DataError`` where answers and questions do not have the same ids.
    """
    given = by_id(answers, "question_id", RESULTS)
    asked = by_id(questions, "question_id", "the questions")
    check_same(given, asked, RESULTS)
    same = EvalAIAnswerProcessor()
    return [
        {
            "image": required_field(question, "image", str, f"question {key}"),
            "answer": same(text_of(given[key], RESULTS)),
        }
        for key, question in asked.items()
    ]


def mmvet_results(answers: Sequence[Record]) -> dict[str, str]:
    """Convert answers for MM-Vet's grader: answers by ``v1_ID``."""
    return {f"v1_{key}": text_of(record, RESULTS) for key, record in by_id(answers, "question_id", RESULTS).items()}


def seed_upload(answers: Sequence[Record], questions: Sequence[Record]) -> list[dict[str, Any]]:
    """Convert answers for SEED-Bench's server: ``question_id`` as the questions have it, in their order, and the text.

    Raises ``DataError`` where answers and questions do not have the same ids.
    """
    given = by_id(answers, "question_id", RESULTS)
    asked = by_id(questions, "question_id", "the questions")
    check_same(given, asked, RESULTS)
    return [
        {"question_id": own["question_id"], "prediction": text_of(given[key], RESULTS)} for key, own in asked.items()
    ]


def seed_scores(answers: Sequence[Record], annotation: object) -> dict[str, Any]:
    """Score SEED-Bench in percent: ``total``, ``by_data`` (image, video) and ``by_type`` of question.

    annotation: SEED-Bench.json, with ``questions`` and ``question_type`` (name -> number). As upstream, an answer is
    right that is the letter alone. Raises ``DataError`` where answers and questions do not have the same ids.
    """
    check_same(by_id(answers, "question_id", RESULTS), _seed_questions(annotation), RESULTS)
    hits = _seed_hits(answers, annotation)
    by_type = defaultdict(list)
    for _, name, hit in hits:
        by_type[name].append(bool(hit))
    return {
        "questions": len(hits),
        "total": 100 * sum(bool(hit) for _, _, hit in hits) / len(hits),
        "by_data": seed_scores_by_data(answers, annotation),
        "by_type": {name: 100 * sum(own) / len(own) for name, own in by_type.items()},
    }


def seed_scores_by_data(answers: Sequence[Record], annotation: object) -> dict[str, float]:
    """Return SEED-Bench's accuracy in percent by type of data, for those of which all questions are answered."""
    by_data = defaultdict(list)
    for data, _, hit in _seed_hits(answers, annotation):
        by_data[data].append(hit)
    return {data: 100 * sum(map(bool, own)) / len(own) for data, own in by_data.items() if None not in own}


def _seed_questions(annotation: object) -> dict[str, Record]:
    questions = by_id(required_field(annotation, "questions", list, ANNOTATION), "question_id", ANNOTATION)
    if not questions:
        raise DataError(f"{ANNOTATION} holds no questions")
    return questions


def _seed_hits(answers: Sequence[Record], annotation: object) -> list[tuple[str, str, bool | None]]:
    """Return each question's type of data, its type, and whether its answer is right; None where it has none."""
    questions = _seed_questions(annotation)
    given = by_id(answers, "question_id", RESULTS)
    names = {}
    for name, number in required_field(annotation, "question_type", dict, ANNOTATION).items():
        names[typed(number, int, f"{ANNOTATION}: the number of {name!r}")] = name
    hits = []
    for key, question in questions.items():
        about = f"{ANNOTATION}, question {key}"
        number = required_field(question, "question_type_id", int, about)
        if number not in names:
            raise DataError(f"{about}: 'question_type_id' is {number}; 'question_type' has {shown(sorted(names))}")
        if (truth := required_field(question, "answer", str, about)) not in LETTERS:
            raise DataError(f"{about}: 'answer' is {shown(truth)}; expected A, B, C or D")
        hit = text_of(given[key], RESULTS) == truth if key in given else None
        hits.append((required_field(question, "data_type", str, about), names[number], hit))
    return hits


def mmbench_table(rows: Sequence[Row], answers: Sequence[Record]) -> list[list[Any]]:
    """Convert answers for MMBench's server: a heading, and a line a question with the answer to its first round.

    Raises ``DataError`` where answers and questions do not have the same ids.
    """
    turns = [required_field(r, "round_id", int, f"{RESULTS}, answer {n}") for n, r in enumerate(answers, 1)]
    first = by_id([r for r, turn in zip(answers, turns, strict=True) if turn == 0], "question_id", RESULTS)
    check_same(first, by_id(rows, "index", "the annotation file"), RESULTS)
    heading = [name for name in rows[0] if name not in MMBENCH_LEFT_OUT]
    lines: list[list[Any]] = [[*heading[:MMBENCH_PREDICTION], "prediction", *heading[MMBENCH_PREDICTION:]]]
    for row in rows:
        key = str(row["index"])
        cells: list[Any] = [int(key) if name == "index" else row[name] for name in heading]
        lines.append([*cells[:MMBENCH_PREDICTION], text_of(first[key], RESULTS), *cells[MMBENCH_PREDICTION:]])
    return lines


MmeTruth = dict[tuple[str, str, str], str]  # category, image, question -> yes or no


def mme_lines(answers: Sequence[Record], truth: MmeTruth) -> dict[str, list[str]]:
    """Convert answers for MME's scorer: by category, lines of image, question, truth and answer, separated by tabs.

    A record's ``question_id`` is CATEGORY/IMAGE. Raises ``DataError`` for questions that have no truth, and for those
    of an answered category that have no answer.
    """
    lines: defaultdict[str, list[str]] = defaultdict(list)
    unanswered = set(truth)
    for number, record in enumerate(answers, 1):
        where = f"{RESULTS}, answer {number}"
        category, _, rest = required_field(record, "question_id", str, where).partition("/")
        image = rest.rpartition("/")[2]
        question = mme_question(required_field(record, "prompt", str, where))
        if (category, image, question) not in unanswered:
            raise DataError(f"{record['question_id']}: {question!r} is no question of MME, or is answered twice")
        unanswered.discard((category, image, question))
        answer = " ".join(text_of(record, RESULTS).split())
        lines[category].append("\t".join((image, question, truth[category, image, question], answer)))
    missing = [key for key in unanswered if key[0] in lines]
    if missing or not lines:
        example = min(missing, default="all")
        raise DataError(f"{len(missing)} questions of answered categories have no answer: {example}")
    return dict(lines)


def mme_question(prompt: str) -> str:
    """Return a prompt's question as MME's files have it, but with single spaces.

    It has no image tag and no request for a short answer, and ends with ``YES_NO``.
    """
    text = " ".join(prompt.replace(DEFAULT_IMAGE_TOKEN, "").replace(SHORT_PROMPT, "").split())
    return text if text.endswith(YES_NO) else f"{text} {YES_NO}"
