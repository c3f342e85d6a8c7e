"""Answers, and what they cost, are those of the runner on the same questions."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ada.eval.lmms.metrics import metrics_of
from ada.eval.lmms.settings import GenerationSettings, read_generation_kwargs
from ada.eval.lmms.task_answers import TaskQuestion, answers, images_of, prompt_of
from llava.errors import DataError
from llava.eval import model_vqa_loader
from llava.generation import SamplingParams


def texts(answerer, questions, size, keywords) -> list[str]:
    given = dict(answers(answerer, questions, size, keywords, 0))
    assert sorted(given) == list(range(len(questions)))
    return [given[position].text for position in range(len(questions))]


def test_answers_and_metrics_are_the_runners(answerer, questions, keywords, quiz, checkpoint_h, tmp_path) -> None:
    flags = ["--question-file", quiz / "questions.jsonl", "--image-folder", quiz / "images", "--temperature", 0]
    flags += ["--model-path", checkpoint_h, "--conv-mode", "vicuna_v1", "--max_new_tokens", 3, "--device", "cpu"]
    flags += ["--latency-budget", 0.75, "--answers-file", tmp_path / "answers.jsonl"]
    assert model_vqa_loader.main([str(flag) for flag in flags]) == 0
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    given = dict(answers(answerer, questions, 1, keywords, 0))
    assert [given[position].text for position in range(len(questions))] == [record["text"] for record in records]
    for position, record in enumerate(records):
        ours, theirs = metrics_of(given[position].metadata), record["metadata"]
        for name in ("granted", "share", "prefill_gflops", "decode_gflops_per_token"):
            assert ours[name] == theirs[name]
        assert given[position].metadata["plan"] == theirs["plan"] and given[position].seconds > 0


def test_answers_in_batches_are_those_of_one_by_one(answerer, questions, keywords, greedy) -> None:
    """In batches of prompts of several lengths, and with two ways of generating."""
    short = GenerationSettings(SamplingParams(max_new_tokens=1), ())
    mixed = [TaskQuestion(q.task, q.doc_id, q.context, greedy if q.doc_id % 3 else short, q.visuals) for q in questions]
    alone = texts(answerer, mixed, 1, keywords)
    assert texts(answerer, mixed, 5, keywords) == alone
    assert len({len(text.split()) for text in alone}) > 1


def test_answer_ends_before_the_first_stop_text(answerer, questions, keywords) -> None:
    full = texts(answerer, questions, 1, keywords)
    at = next(position for position, text in enumerate(full) if len(set(text.split())) == 3)
    first, second, third = full[at].split()
    for until, expected in (([third, second], first), (third, f"{first} {second}"), (first, ""), ("zzz", full[at])):
        how = read_generation_kwargs({"max_new_tokens": 3, "until": until})
        asked = TaskQuestion("quiz", 0, questions[at].context, how, questions[at].visuals)
        ((_, given),) = answers(answerer, [asked], 1, keywords, 0)
        assert given.text == expected
        assert given.metadata["new_tokens"] == len(expected.split()) + (until != "zzz")


def test_prompts_with_several_images_and_none(answerer, keywords, quiz, greedy) -> None:
    """Their tags come before the text, or where the task has put them."""
    images = [Image.open(quiz / "images" / f"{n}.png") for n in range(2)]
    template = answerer.template.system + " USER: {} ASSISTANT:"
    assert prompt_of(answerer, "w3", 2, "") == template.format("<image>\n<image>\nw3")
    assert prompt_of(answerer, "w3 <image> w4 <image>", 2, "") == template.format("w3 <image> w4 <image>")
    assert prompt_of(answerer, "w3", 0, "") == template.format("w3")
    with pytest.raises(DataError, match="question 7 of quiz has 1 image tags in its text and 2 images"):
        prompt_of(answerer, "w3 <image>", 2, "question 7 of quiz")
    asked = [
        TaskQuestion("quiz", 0, "w3", greedy, lambda: images),
        TaskQuestion("quiz", 1, "w3 <image> w4 <image>", greedy, lambda: images),
        TaskQuestion("quiz", 2, "w3", greedy, lambda: None),
        TaskQuestion("quiz", 3, "w3", greedy, lambda: [None]),
    ]
    given = dict(answers(answerer, asked, 4, keywords, 0))
    tokens = [given[position].metadata["prompt_tokens"] for position in range(4)]
    patches = answerer.model.get_vision_tower().num_patches
    assert tokens[0] - tokens[2] == 2 * patches and tokens[1] - tokens[0] == 1 and tokens[2] == tokens[3]


def test_images_of_refuses_video() -> None:
    with pytest.raises(DataError, match="question 1 of clips shows a str; ada_llava reads images only"):
        images_of(["clip.mp4"], "question 1 of clips")


def test_repeats_draw_anew_and_runs_are_reproducible(answerer, questions, keywords) -> None:
    how = read_generation_kwargs({"do_sample": True, "temperature": 2.0, "max_new_tokens": 3})
    asked = [TaskQuestion("quiz", q.doc_id, q.context, how, q.visuals) for q in questions for _ in range(2)]
    once = texts(answerer, asked, 1, keywords)
    assert once == texts(answerer, asked, 1, keywords)
    assert once[::2] != once[1::2]
