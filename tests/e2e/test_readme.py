"""The READMEs' commands exist and take the flags that are shown; the paths that they name are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

PAGES = ("README.md", "CONTRIBUTING.md", "llava/README.md", "ada/README.md", "playground/README.md")
PAGES += ("playground/shapes/README.md", "playground/easy_vqa/README.md")


def commands(page: Path) -> list[list[str]]:
    """Indented lines that run something, a line that ends in a backslash joined with the next one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    (.*(?:python -m|bash) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("name", PAGES)
def test_programs_and_flags_exist(name: str, root: Path) -> None:
    for words in commands(root / name):
        if "bash" in words:
            assert (root / words[words.index("bash") + 1]).is_file(), words
            continue
        program = words[words.index("-m") + 1]
        assert program == "pytest" or importlib.util.find_spec(program), words
        parts = words[words.index("-m") + 1 :][:2]
        texts = [Path(__file__).parent / "help" / f"{' '.join(parts[:count])}.txt" for count in (2, 1)]
        told = next((text for text in texts if text.exists()), texts[-1])  # a program's part has a text of its own
        if told.exists():
            known = set(re.findall(r"--[\w-]+", told.read_text(encoding="utf-8")))
            assert {word for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str, root: Path) -> None:
    page = root / name
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("room", ["ada", "llava", "playground"])
def test_every_file_of_a_room_is_on_its_page(room: str, root: Path) -> None:
    """By its name, or by its folder's."""
    page = (root / room / "README.md").read_text(encoding="utf-8")
    inner = root / room / "shapes" / "README.md"
    page += inner.read_text(encoding="utf-8") if inner.exists() else ""
    files = [path for path in (root / room).rglob("*.py") if path.stem not in ("__init__", "__main__")]
    assert files
    assert not [path for path in files if path.name not in page and f"`{path.parent.name}/`" not in page]


def test_no_page_has_a_gap(root: Path) -> None:
    assert not [name for name in PAGES if "@@" in (root / name).read_text(encoding="utf-8")]
