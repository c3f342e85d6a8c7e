"""Reads benchmarks of open answers: exact match (GQA), or ten people's answers (VQAv2, VizWiz, TextVQA)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ada.eval.questions.question_set import Figures, Item, QuestionSet, asked_by
from llava.errors import DataError
from llava.eval import model_vqa
from llava.eval.answering.questions import Question
from llava.eval.eval_gqa import gqa_scores
from llava.eval.eval_textvqa import predictions, prompt_processor
from llava.eval.eval_vqa import vqa_scores
from llava.eval.m4c_evaluator import NUM_PEOPLE, TextVQAAccuracyEvaluator
from llava.eval.scoring.matching import by_id
from llava.eval.scoring.submissions import gqa_predictions, vizwiz_upload, vqav2_upload
from llava.files.fields import list_of
from llava.files.jsonl import Record, read_json, read_records


def gqa(folder: Path) -> QuestionSet:
    """Read GQA: open questions; a kind is a structure."""
    truths = read_json(folder / "data" / "testdev_balanced_questions.json", "GQA's")

    def item(question: Question) -> Item:
        own = truths[str(question.question_id)]
        answer, kind = own["answer"], own["types"]["structural"]
        return Item(question, kind, answer, lambda r: gqa_predictions([r])[0]["prediction"] == answer)

    def score(records: Sequence[Record]) -> Figures:
        return {"accuracy, %": gqa_scores(truths, gqa_predictions(records))["accuracy"]}

    asked = asked_by(model_vqa, folder / "llava_gqa_testdev_balanced.jsonl", folder / "data" / "images")
    return QuestionSet("gqa", "GQA", [item(question) for question in asked], score)


def _by_people(question: Question, kind: str, people: Sequence[str]) -> Item:
    """Make an item that is right where enough of ten people gave the answer for the full score.

    Raises ``DataError`` unless these are ten texts.
    """
    people = list_of(people, str, f"the answers to question {question.question_id}")
    if len(people) != NUM_PEOPLE:
        raise DataError(f"question {question.question_id} has {len(people)} people's answers; expected {NUM_PEOPLE}")

    def mark(record: Record) -> bool:
        entry = {"pred_answer": record["text"], "gt_answers": people}
        return TextVQAAccuracyEvaluator().scores([entry])[0] == 1

    return Item(question, kind, max(people, key=list(people).count), mark)


def vqav2(folder: Path) -> QuestionSet:
    """Read VQAv2's test-dev, where its answers are known; a kind is a type of answer."""
    split = "mscoco_test-dev2015"
    annotations = read_json(folder / f"v2_{split}_annotations.json", "VQAv2's")["annotations"]
    known = by_id(annotations, "question_id", "VQAv2's annotations")
    file = folder / f"llava_vqav2_{split}.jsonl"
    asked = read_records(file, "VQAv2's")

    def item(question: Question) -> Item:
        own = known[str(question.question_id)]
        return _by_people(question, own["answer_type"], [answer["answer"] for answer in own["answers"]])

    def score(records: Sequence[Record]) -> Figures:
        return {"accuracy, %": vqa_scores(annotations, vqav2_upload(records, asked), "question_id")["accuracy"]}

    questions = asked_by(model_vqa, file, folder / "test2015")
    return QuestionSet("vqav2", "VQAv2", [item(question) for question in questions], score)


def vizwiz(folder: Path) -> QuestionSet:
    """Read VizWiz, where its answers are known; a kind is a type of answer."""
    annotations = read_json(folder / "test.json", "VizWiz's")
    known = by_id(annotations, "image", "VizWiz's annotations")
    file = folder / "llava_test.jsonl"
    asked = read_records(file, "VizWiz's")
    image_names = {str(line["question_id"]): str(line["image"]) for line in asked}

    def item(question: Question) -> Item:
        own = known[image_names[str(question.question_id)]]
        return _by_people(question, own["answer_type"], [answer["answer"] for answer in own["answers"]])

    def score(records: Sequence[Record]) -> Figures:
        return {"accuracy, %": vqa_scores(annotations, vizwiz_upload(records, asked), "image")["accuracy"]}

    questions = asked_by(model_vqa, file, folder / "test")
    return QuestionSet("vizwiz", "VizWiz", [item(question) for question in questions], score)


def textvqa(folder: Path) -> QuestionSet:
    """Read TextVQA: questions about text in the image, of one kind."""
    annotations = read_json(folder / "TextVQA_0.5.1_val.json", "TextVQA's")["data"]
    people = {(str(own["image_id"]), own["question"].lower()): own["answers"] for own in annotations}

    def item(question: Question) -> Item:
        return _by_people(question, "reading", people[str(question.question_id), prompt_processor(question.prompt)])

    def score(records: Sequence[Record]) -> Figures:
        marks = predictions(annotations, records)
        return {"accuracy, %": 100 * TextVQAAccuracyEvaluator().eval_pred_list(marks)}

    asked = asked_by(model_vqa, folder / "llava_textvqa_val_v051_ocr.jsonl", folder / "train_images")
    return QuestionSet("textvqa", "TextVQA", [item(question) for question in asked], score)
