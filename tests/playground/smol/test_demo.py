"""The demo's images: drawn from their scenes, and what is asked about them is there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from PIL import Image, ImageChops

from llava.serve.gradio_web_server import EXAMPLES
from playground.shapes.draw import draw
from playground.smol import demo


@pytest.mark.parametrize("name", demo.SCENES)
def test_an_image_is_its_scene(root, name):
    stored = Image.open(root / "playground" / "smol" / name)
    assert stored.size == (demo.SIDE, demo.SIDE)
    assert ImageChops.difference(draw(demo.SCENES[name], demo.SIDE), stored).getbbox() is None


def test_questions_and_examples_are_about_the_images():
    assert len(demo.QUESTIONS) == 10 and {name for name, _ in demo.QUESTIONS} == set(demo.SCENES)
    assert {name for name, _ in EXAMPLES} == set(demo.SCENES)


def test_the_table_has_an_answer_at_each_budget(monkeypatch, capsys):
    """Of a model that says what it was asked, in a stand-in for the chat."""

    class Session:
        def __init__(self, *parts, images):
            self.budget, self.image = parts[-1]["latency_budget"], images[0]

        def ask(self, question, show):
            return SimpleNamespace(text=f"{self.budget:g} of {self.image.width}")

    loaded = SimpleNamespace(model=None, tokenizer=None, image_processor=None, template=None, options={})
    monkeypatch.setattr(demo, "open_model", lambda options: loaded)
    monkeypatch.setattr(demo, "ChatSession", Session)
    monkeypatch.setattr(sys, "argv", ["demo", "--model-path", "any"])
    assert demo.main() == 0
    rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 2 + len(demo.QUESTIONS)
    assert rows[2] == "| `demo.png` | What color is the triangle? | 1 of 336 | 0.7 of 336 | 0.5 of 336 |"


def test_nothing_to_do_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit):
        demo.main()
    assert "give --out" in capsys.readouterr().err
