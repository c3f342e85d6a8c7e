"""The quiz as a task of lmms-eval, and the model that answers it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ada.eval.lmms.settings import plugin_options, read_generation_kwargs
from ada.eval.lmms.task_answers import TaskQuestion
from llava.eval.answering.runner import load_answerer
from llava.plugins import hooks, merged

BUDGET = 0.75


@pytest.fixture(scope="session")
def greedy():
    """Three tokens, greedily."""
    return read_generation_kwargs({"max_new_tokens": 3, "until": []})


@pytest.fixture(scope="module")
def answerer(checkpoint_h):
    return load_answerer(str(checkpoint_h), device="cpu", conv_mode="vicuna_v1")


@pytest.fixture(scope="module")
def generate_keywords(answerer):
    """``generate_keywords(budget, **others)``: what the plug-ins pass to ``generate``."""

    def make(budget: float | None = BUDGET, **others):
        options = plugin_options({"latency_budget": budget, **others})
        return merged(hooks().generation_options(model=answerer.model, options=options, tokenizer=answerer.tokenizer))

    return make


@pytest.fixture(scope="module")
def keywords(generate_keywords):
    return generate_keywords()


@pytest.fixture(scope="module")
def questions(quiz, greedy):
    """The quiz's questions as a task's."""
    rows = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]

    def opened(name: str):
        return lambda: [Image.open(quiz / "images" / name)]

    return [TaskQuestion("quiz", row["question_id"], row["text"], greedy, opened(row["image"])) for row in rows]
