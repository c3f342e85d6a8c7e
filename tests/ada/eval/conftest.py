"""Tiny adaptive checkpoints, a question file that they get half right, and rows of made-up answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fixtures.tiny_models import never_end
from PIL import Image

from ada.budget import LatencyBudget
from ada.config import AdaLlavaConfig
from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.latency_samples import LatencySamples
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import Item, QuestionSet
from ada.eval.stats.results import Part, Row, make_rows
from ada.eval.sweep import parse_arguments
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from ada.scheduling.execution_plan import ExecutionPlan
from llava.eval.answering.questions import Question
from llava.generation import SamplingParams, answer, conversation_for, stop_text, with_image_tags
from llava.model.builder import load_pretrained_model

NEW_TOKENS = 3


@pytest.fixture(scope="session")
def make_adaptive(make_checkpoint):
    """``make_adaptive(kind, **config)``: a checkpoint of 6 layers, 2 of them prefix, with a random scheduler."""

    def make(kind: str = "H", **changes) -> Path:
        folder = make_checkpoint(num_hidden_layers=6, initializer_range=0.3)
        fields = json.loads((folder / "config.json").read_text())
        fields = {key: value for key, value in fields.items() if key not in ("model_type", "architectures")}
        scheduler = {"scheduler_type": kind, "num_prefix_layers": 2, "scheduler_rank": 1, **changes}
        config = AdaLlavaConfig(**fields, **scheduler)
        config._name_or_path = str(folder)
        torch.manual_seed(1)
        model = AdaLlavaLlamaForCausalLM(config)
        never_end(model)
        model.get_vision_tower().load_model()
        model.save_pretrained(folder)
        return folder

    return make


@dataclass
class OneByOne:
    """A checkpoint that is asked one question at a time, the way the programs do."""

    folder: Path

    def __post_init__(self) -> None:
        self.tokenizer, self.model, self.image_processor, _ = load_pretrained_model(
            str(self.folder), None, "tiny", device="cpu"
        )

    def __call__(self, text: str, image: Path, budget: float, planner: str):
        conversation = conversation_for(self.model, "tiny", "vicuna_v1")
        conversation.append_message(conversation.roles[0], with_image_tags(self.model, text, 1))
        conversation.append_message(conversation.roles[1], None)
        return answer(
            self.model,
            self.tokenizer,
            self.image_processor,
            conversation.get_prompt(),
            [Image.open(image).convert("RGB")],
            sampling=SamplingParams(max_new_tokens=NEW_TOKENS),
            options={"latency_budget": budget, "planner": planner},
            stop=stop_text(conversation),
        )


@pytest.fixture(scope="session")
def one_by_one():
    """``one_by_one(folder)(text, image, budget, planner)`` -> ``llava.generation.Answer``."""
    return OneByOne


@pytest.fixture(scope="session")
def checkpoint_h(make_adaptive) -> Path:
    """A checkpoint of kind H, which selects heads and neurons."""
    return make_adaptive("H")


@pytest.fixture(scope="session")
def quiz(tmp_path_factory, checkpoint_h, one_by_one) -> Path:
    """A folder with ``questions.jsonl`` of two kinds and ``images/``. The first kind's answers are what
    ``checkpoint_h`` says at the full budget; the second kind's are wrong."""
    folder = tmp_path_factory.mktemp("quiz")
    (folder / "images").mkdir()
    torch.manual_seed(2)
    ask, lines = one_by_one(checkpoint_h), []
    for number in range(12):
        image = folder / "images" / f"{number}.png"
        pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(image)
        text = " ".join(f"w{int(word)}" for word in torch.randint(3, 60, (1 + number % 5,)))
        kind = ("known", "unknown")[number % 2]
        expected = ask(text, image, 1.0, "learned").text if kind == "known" else f"w{number % 3}"
        fields = {"question_id": number, "image": image.name, "text": text, "category": kind, "answer": expected}
        lines.append(json.dumps(fields) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def flags(quiz, tmp_path):
    """``flags(*model_paths, more=[...])``: the command's parsed flags, answers going to the test's folder."""

    def make(*models: object, more: list[str] | None = None, out: str = "out"):
        return parse_arguments(
            [
                *("--model-path", *map(str, models)),
                *("--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")),
                *("--out", str(tmp_path / out), "--max-new-tokens", str(NEW_TOKENS), "--batch-size", "5"),
                *("--device", "cpu", "--timed-questions", "0", *(more or [])),
            ]
        )

    return make


@pytest.fixture(scope="session")
def rows_of():
    """``rows_of({(planner, budget): {set: "1101"}})``: rows of one model; in a set's marks 1 is a right answer."""
    return _rows_of


def _questions(name: str, count: int, open_image=None) -> QuestionSet:
    items = [
        Item(Question(n, f"what <is> {n}?", "text", open_image), ("first", "second")[n % 2], "yes", _right)
        for n in range(count)
    ]
    return QuestionSet(name, f"{name} set", items, lambda records: {"points & more": None})


def _right(record) -> bool:
    return record["text"] == "yes"


def _rows_of(rights: dict[tuple[str, float], dict[str, str]], family: str = "H", timed: bool = True) -> list[Row]:
    plan = ExecutionPlan.full(4, 2)

    def image():
        return Image.new("RGB", (40, 30), "red")

    sets = {}
    parts, times = {}, {}
    for (planner, budget), own in rights.items():
        run = Run("tiny", planner, LatencyBudget(budget))
        parts[run] = {}
        for name, marks in own.items():
            sets.setdefault(name, _questions(name, len(marks), image))
            answers = [
                GivenAnswer(n, n, "yes" if mark == "1" else "<no> & <br>", 1.0, 2.0 * budget, plan.to_short_json())
                for n, mark in enumerate(marks)
            ]
            parts[run][name] = Part.of(sets[name], answers)
        if timed:
            times[run] = LatencySamples((10 * budget, 20 * budget), (1.0, 2.0), (5 * budget, 5 * budget))
    return make_rows({"tiny": family}, parts, times)


@pytest.fixture(scope="session")
def example_rows(rows_of) -> list[Row]:
    """Two planners at two budgets: the first falls to a half on one kind of question, the second to nothing."""
    return rows_of(
        {
            ("learned", 1.0): {"test": "1" * 40, "other": "1111"},
            ("learned", 0.5): {"test": "10" * 20, "other": "1100"},
            ("last", 1.0): {"test": "1" * 40, "other": "1111"},
            ("last", 0.5): {"test": "0" * 40, "other": "0000"},
        }
    )
