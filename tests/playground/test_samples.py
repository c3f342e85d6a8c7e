"""The sample sheet and the pages that show it."""

from __future__ import annotations

import re
import sys

from PIL import Image

from playground.shapes import samples
from playground.shapes.questions import KINDS


def test_the_command_draws_one_question_of_each_kind(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["samples", "--out", str(tmp_path / "sheet.png")])
    samples.main()
    kept = Image.open(root / "playground" / "shapes" / "samples.png")
    assert Image.open(tmp_path / "sheet.png").size == kept.size
    assert [question.kind for _, question in samples.samples(298)] == list(KINDS)


def test_text_stays_under_its_image(monkeypatch):
    """Below an image are as many lines as the sheet has room for, none of them wider than the image."""
    written = []

    def note(self, position, text, colour, font):
        assert self.textlength(text, font) <= samples.WIDTH
        written.append((position, text))

    monkeypatch.setattr(samples.ImageDraw.ImageDraw, "text", note)
    drawn = []
    monkeypatch.setattr(samples, "draw", lambda scene: drawn.append(scene) or Image.new("RGB", (96, 96)))
    samples.sheet(298)
    rows = [(y - samples.GAP - samples.WIDTH - 4) % (samples.WIDTH + samples.LINES * samples.LINE + samples.GAP)
            for (_, y), _ in written]  # fmt: skip
    assert len(drawn) == len(KINDS) and max(rows) < samples.LINES * samples.LINE


def test_the_page_names_every_file_and_kind(root):
    folder = root / "playground" / "shapes"
    page = (folder / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+\.(?:py|png))`", page)) | set(re.findall(r"\(([\w.]+\.png)\)", page))
    there = {p.name for p in folder.iterdir() if p.suffix in (".py", ".png") and p.name != "__init__.py"}
    assert named == there
    assert all(f"| `{kind}` |" in page for kind in KINDS)
