"""Reads benchmarks from the folders and files of LLaVA's scripts, each with its own scorer and a mark for every answer.

Those that need a judge (MM-Vet, LLaVA-Bench) are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ada.eval.questions.benchmarks_open import gqa, textvqa, vizwiz, vqav2
from ada.eval.questions.question_set import Figures, Item, QuestionSet, asked_by
from llava.errors import DataError
from llava.eval import model_vqa, model_vqa_mmbench, model_vqa_science
from llava.eval.answering.questions import Question
from llava.eval.eval_mmbench import chosen, mmbench_scores, true_letters
from llava.eval.eval_mmbench.table import read_table
from llava.eval.eval_mme import mme_scores, parse_pred_ans
from llava.eval.eval_mme.ground_truth import read_truth
from llava.eval.eval_pope import PREFIX, SUFFIX, pope_scores, yes_or_no
from llava.eval.eval_science_qa import LETTERS, choices_of, get_pred_idx, parse_answer, read_problems, science_scores
from llava.eval.scoring.matching import by_id
from llava.eval.scoring.pope_labels import labels_of
from llava.eval.scoring.submissions import mme_lines, mme_question, seed_scores
from llava.files.fields import required_field
from llava.files.jsonl import Record, read_json, read_records


def _reads(reading: Callable[[str], str], truth: str, record: Record) -> bool:
    """Return whether an answer, as a benchmark reads it, is the true one."""
    return reading(record["text"]) == truth


def pope(folder: Path) -> QuestionSet:
    """Read POPE: is an object in the image? A kind is a category, whose labels are in its questions' order."""
    file = folder / "llava_pope_test.jsonl"
    lines = read_records(file, "POPE's")
    kinds = [required_field(line, "category", str, f"{file}, line {n}") for n, line in enumerate(lines, 1)]
    truths = {
        kind: labels_of(
            [line for line, own in zip(lines, kinds, strict=True) if own == kind],
            folder / "coco" / f"{PREFIX}{kind}{SUFFIX}",
        )
        for kind in dict.fromkeys(kinds)
    }
    labels = {kind: iter(own) for kind, own in truths.items()}
    items = [
        Item(question, kind, truth := next(labels[kind]), partial(_reads, yes_or_no, truth))
        for question, kind in zip(asked_by(model_vqa, file, folder / "val2014"), kinds, strict=True)
    ]

    def score(records: Sequence[Record]) -> Figures:
        texts: defaultdict[str, list[str]] = defaultdict(list)
        for record, kind in zip(records, kinds, strict=True):
            texts[kind].append(record["text"])
        try:
            own = [pope_scores(texts[kind], truths[kind]) for kind in truths]
        except DataError:  # undefined: in one category no yes was right
            return {"F1, %": None}
        return {"F1, %": 100 * sum(scores["f1"] for scores in own) / len(own)}

    return QuestionSet("pope", "POPE", items, score)


def mme(folder: Path) -> QuestionSet:
    """Read MME: yes or no, two questions an image; a kind is a category."""
    release = folder / "MME_Benchmark_release_version"
    truth = read_truth(release)
    items = []
    for question in asked_by(model_vqa, folder / "llava_mme.jsonl", release):
        kind, _, image_name = str(question.question_id).partition("/")
        answer = truth[kind, image_name, mme_question(question.prompt)].lower()
        items.append(Item(question, kind, answer, partial(_reads, parse_pred_ans, answer)))

    def score(records: Sequence[Record]) -> Figures:
        lines = {kind: [line.split("\t") for line in own] for kind, own in mme_lines(records, truth).items()}
        found = mme_scores(lines)  # type: ignore[arg-type]
        return {
            f"{side.lower()}, points of {200 * len(own['categories'])}": own["total"] for side, own in found.items()
        }

    return QuestionSet("MME", "MME", items, score)


def science_qa(folder: Path) -> QuestionSet:
    """Read ScienceQA: multiple choice, with an image and without."""
    problems = read_problems(folder, "test")
    file = folder / "llava_test_CQM-A.json"

    def item(question: Question) -> Item:
        key = str(question.question_id)
        choices, answer = choices_of(key, problems[key], LETTERS)
        kind = "with an image" if question.open_image else "text only"
        return Item(
            question, kind, LETTERS[answer], lambda r: get_pred_idx(parse_answer(r["text"]), choices, LETTERS) == answer
        )

    def score(records: Sequence[Record]) -> Figures:
        return {"accuracy, %": science_scores(problems, by_id(records, "question_id", "the answers"))["acc"]}

    questions = asked_by(model_vqa_science, file, folder / "images" / "test", single_pred_prompt=True)
    return QuestionSet("scienceqa", "ScienceQA", [item(question) for question in questions], score)


def _chooses(letter: str, record: Record) -> bool:
    return chosen(record) == letter


def mmbench(folder: Path, table: str = "mmbench_dev_20230712", lang: str = "en") -> QuestionSet:
    """Read MMBench: multiple choice, each row asked once; a kind is a category."""
    file = folder / f"{table}.tsv"
    rows = read_table(file, "MMBench's")
    truths = true_letters(rows)
    questions = asked_by(model_vqa_mmbench, file, all_rounds=False, single_pred_prompt=True, lang=lang)
    items = [
        Item(question, row.get("category") or "none", truth := truths[str(row["index"])], partial(_chooses, truth))
        for question, row in zip(questions, rows, strict=True)
    ]

    def score(records: Sequence[Record]) -> Figures:
        scores = mmbench_scores(rows, records)
        circular = scores["circular_accuracy"]
        return {"accuracy, %": scores["accuracy"]} | ({} if circular is None else {"circular accuracy, %": circular})

    title = "MMBench" if lang == "en" else "MMBench-CN"
    return QuestionSet(folder.name, title, items, score)


def mmbench_cn(folder: Path) -> QuestionSet:
    """Read MMBench-CN, which asks for a letter in Chinese."""
    return mmbench(folder, "mmbench_dev_cn_20231003", "cn")


def seed_bench(folder: Path) -> QuestionSet:
    """Read SEED-Bench: multiple choice; a kind is a type of question."""
    annotation = read_json(folder / "SEED-Bench.json", "SEED-Bench's")
    questions = by_id(annotation["questions"], "question_id", "SEED-Bench.json")
    names = {number: name for name, number in annotation["question_type"].items()}

    def item(question: Question) -> Item:
        own = questions[str(question.question_id)]
        answer = own["answer"]
        kind = names[own["question_type_id"]]
        return Item(question, kind, answer, partial(_reads, str, answer))

    def score(records: Sequence[Record]) -> Figures:
        return {"accuracy, %": seed_scores(records, annotation)["total"]}

    asked = asked_by(model_vqa, folder / "llava-seed-bench.jsonl", folder)
    return QuestionSet("seed_bench", "SEED-Bench", [item(question) for question in asked], score)


BENCHMARKS: dict[str, Callable[[Path], QuestionSet]] = {
    "pope": pope,
    "MME": mme,
    "textvqa": textvqa,
    "vqav2": vqav2,
    "gqa": gqa,
    "vizwiz": vizwiz,
    "scienceqa": science_qa,
    "mmbench": mmbench,
    "mmbench_cn": mmbench_cn,
    "seed_bench": seed_bench,
}
"""A benchmark's folder in the benchmarks' folder -> the function that reads it."""


def read_benchmark(name: str, folder: Path) -> QuestionSet:
    """Read one benchmark. Raises ``DataError`` where its questions and truths do not match."""
    try:
        return BENCHMARKS[name](folder / name)
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"{folder / name}: questions and truths do not match ({error!r})") from error
