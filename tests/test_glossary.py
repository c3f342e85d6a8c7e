"""The words that CONTRIBUTING.md's GLOSSARY replaces stay out of the sources and the pages."""

from pathlib import Path

import pytest

from source_checks import glossary
from source_checks.sources import FOLDERS, Source, read_sources


@pytest.mark.parametrize("folder", FOLDERS)
def test_sources_use_no_forbidden_word(root: Path, folder: str) -> None:
    found = glossary.forbidden_words(read_sources(root, (folder,)))
    assert not found, "\n".join(map(str, found))


def test_pages_use_no_forbidden_word(root: Path) -> None:
    paths = [*root.glob("*.md"), *(page for folder in FOLDERS for page in (root / folder).rglob("*.md"))]
    pages = [path.relative_to(root).as_posix() for path in paths]
    found = [finding for page in pages for finding in glossary.forbidden_in_page(root, page)]
    assert "CONTRIBUTING.md" in pages
    assert not found, "\n".join(map(str, found))


def test_table_and_checked_words_agree(root: Path) -> None:
    listed = glossary.table_words((root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    checked = {*glossary.FORBIDDEN, *glossary.FORBIDDEN_IN_NAMES}
    assert len(listed) > 20
    assert listed - checked == glossary.JUDGED_BY_READERS


@pytest.fixture
def findings_in(tmp_path: Path):
    """``findings_in(text)``: what is found in a Python file of this text."""

    def find(text: str) -> list[str]:
        (tmp_path / "module.py").write_text(text, encoding="utf-8")
        return [
            f"{finding.line} {finding.text}" for finding in glossary.forbidden_words([Source(tmp_path, "module.py")])
        ]

    return find


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Shows a picture."""', "1 docstring: picture"),
        ("x = 1\n# goes behind it", "2 comment: behind"),
        ("old_pictures = 1", "1 name: old_pictures"),
        ("class PictureBox: ...", "1 name: PictureBox"),
        ("def cut(whole): ...", "1 name: whole"),
        ("self.least = 1", "1 name: least"),
        ("import numpy as told", "1 name: told"),
        ('parser.add_argument("--x", help="a file at hand")', "1 help: at hand"),
        ('parser.add_argument("--x", help=f"{n} pictures")', "1 help: pictures"),
        ('field(metadata={"help": "what it tells"})', "1 help: tells"),
        ('flag(3, "seconds gone")', "1 help: gone"),
        ('"""Line.\n\nStands in front of it.\n"""', "3 docstring: in front of"),
    ],
)
def test_forbidden_word_is_found(findings_in, text: str, expected: str) -> None:
    assert findings_in(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        'QUESTION = "What is in the picture?"',
        'def ask():\n    return {"text": "gone"}',
        '"""Waits at least a second, in the right place; recommends replacing it, besides."""',
        "values.sort()\nplacement = replace(values)",
        "# there is room for one more token",
        "def test_parser_accepts_the_whole_file(): ...",
    ],
)
def test_data_and_plain_english_are_no_findings(findings_in, text: str) -> None:
    assert findings_in(text) == []


def test_code_of_a_page_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A\n\n    --picture x\n\nUse `told`.\n```\nbehind\n```\nThe picture.\n")
    assert [str(finding) for finding in glossary.forbidden_in_page(tmp_path, "page.md")] == ["page.md:9: page: picture"]
