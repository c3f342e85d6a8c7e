"""Scores POPE (object hallucination): accuracy, precision, recall, F1 and share of yes, by category.

python -m llava.eval.eval_pope --annotation-dir DIR --question-file FILE --result-file FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.eval.scoring.pope_labels import labels_of, read_labels
from llava.files.fields import required_field
from llava.files.jsonl import Record, read_records
from llava.program import run_program

NO_WORDS = frozenset(("No", "not", "no"))  # without "NO", as in published scores
PREFIX, SUFFIX = "coco_pope_", ".json"


def yes_or_no(text: str) -> str:
    """Return an answer as POPE reads it: "no" where the first sentence holds one of ``NO_WORDS``, else "yes"."""
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if NO_WORDS.intersection(words) else "yes"


def pope_scores(texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Return counts (``TP FP TN FN``) and metrics in [0, 1]; every label but "no" means yes, as upstream.

    Labels of files are checked where they are read. Raises ``DataError`` where there are not as many answers as labels,
    and where a metric is undefined: no answer is yes, no label is, or no yes is right.
    """
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} answers, but {len(labels)} labels; expected one for one")
    pairs = [(yes_or_no(text) == "yes", label != "no") for text, label in zip(texts, labels, strict=True)]
    tp, fp, tn, fn = (pairs.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True)))
    if tp == 0:
        raise DataError(
            f"precision, recall and F1 are undefined: no yes was right (TP {tp}, FP {fp}, TN {tn}, FN {fn})"
        )
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        "TP": tp,
        "FP": fp,
        "TN": tn,
        "FN": fn,
        "accuracy": (tp + tn) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": (tp + fp) / len(pairs),
    }


def eval_pope(answers: Iterable[Record], label_file: str | Path) -> dict[str, Any]:
    """Score one category, and print its scores as upstream.

    answers: in the order of the labels in ``label_file`` (JSON lines).
    """
    labels = [record["label"] for record in read_labels(Path(label_file))]
    scores = _scored([text_of(answer, "the result file") for answer in answers], labels, label_file)
    print(report(scores))
    return scores


def _scored(texts: Sequence[str], labels: Sequence[str], label_file: str | Path) -> dict[str, Any]:
    try:
        return pope_scores(texts, labels)
    except DataError as error:
        raise DataError(f"{label_file}: {error}") from error


def score(annotation_dir: Path, question_file: Path, result_file: Path) -> dict[str, dict[str, Any]]:
    """Score every category of the questions, with the labels in ``annotation_dir``'s ``coco_pope_CATEGORY.json``.

    Answers are matched to questions by ``question_id``, in any order. Raises ``DataError`` where answers, questions
    and labels do not match, and for a category without labels.
    """
    asked, given = f"--question-file {question_file}", f"--result-file {result_file}"
    questions = by_id(read_records(question_file, "--question-file"), "question_id", asked)
    answers = by_id(read_records(result_file, "--result-file"), "question_id", given)
    check_same(answers, questions, given)
    kinds = {key: required_field(q, "category", str, f"{asked}: question {key}") for key, q in questions.items()}
    files = {file.name[len(PREFIX) : -len(SUFFIX)]: file for file in sorted(annotation_dir.glob(f"{PREFIX}*{SUFFIX}"))}
    if unlabelled := sorted(set(kinds.values()) - set(files)):
        raise DataError(
            f"--annotation-dir {annotation_dir} holds no {PREFIX}{unlabelled[0]}{SUFFIX}, but the questions have the "
            f"category {unlabelled[0]!r}"
        )
    scores = {}
    for category, file in files.items():
        own = [key for key, kind in kinds.items() if kind == category]
        labels = labels_of([questions[key] for key in own], file)
        scores[category] = _scored([text_of(answers[key], given) for key in own], labels, file)
    return scores


def report(scores: dict[str, Any]) -> str:
    """Format one category's scores as upstream prints them."""
    names = {"Accuracy": "accuracy", "Precision": "precision", "Recall": "recall", "F1 score": "f1"}
    counts = "\t".join(str(scores[name]) for name in ("TP", "FP", "TN", "FN"))
    figures = [f"{title}: {scores[name]}" for title, name in {**names, "Yes ratio": "yes_ratio"}.items()]
    brief = ", ".join(f"{scores[name]:.3f}" for name in ("f1", "accuracy", "precision", "recall", "yes_ratio"))
    return "\n".join(["TP\tFP\tTN\tFN\t", counts, *figures, brief])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_pope", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotation-dir", type=Path, required=True, help="folder of coco_pope_CATEGORY.json")
    parser.add_argument(
        "--question-file", type=Path, required=True, help="question file, whose questions have a category"
    )
    parser.add_argument("--result-file", type=Path, required=True, help="answer file of llava.eval.model_vqa*")
    args = parser.parse_args(arguments)

    def show() -> None:
        for category, scores in score(args.annotation_dir, args.question_file, args.result_file).items():
            samples = sum(scores[name] for name in ("TP", "FP", "TN", "FN"))
            print(f"Category: {category}, # samples: {samples}\n{report(scores)}\n====================================")

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
