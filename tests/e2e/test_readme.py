"""The pages' commands exist and take the flags that are shown; the paths that they name are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import help_texts
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("llava", "ada", "playground", "scripts", "tests")
PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(page.relative_to(ROOT).as_posix() for folder in FOLDERS for page in (ROOT / folder).rglob("README.md"))


def commands(text: str) -> list[list[str]]:
    """Lines of code blocks that run something, a line that ends in a backslash joined with the next one."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^    (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    lines += [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    found = [line.removeprefix("$ ") for line in lines if re.search(r"\bpython (-m|scripts/)|\bbash ", line)]
    return [shlex.split(line, comments=True) for line in found]


def unknown_flags(words: list[str]) -> set[str]:
    """The flags of a command that its program does not take."""
    if "bash" in words:
        assert (ROOT / words[words.index("bash") + 1]).is_file(), words
        return set()
    start = words.index("python") + 1
    program, *arguments = words[start + 1 :] if words[start] == "-m" else words[start:]
    if program in ("pip", "pytest", "venv"):
        return set()
    assert (ROOT / program).is_file() or importlib.util.find_spec(program), words
    program = help_texts.SAME_PROGRAM.get(program, program)
    text = help_texts.text_path(program).read_text(encoding="utf-8")
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--") and " " not in word}
    return flags - help_texts.known_flags(text, arguments[0] if arguments else None)


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_take_the_flags_shown(name: str) -> None:
    for words in commands((ROOT / name).read_text(encoding="utf-8")):
        assert not unknown_flags(words), words


def test_unknown_flag_is_found() -> None:
    assert unknown_flags(shlex.split("python -m llava.serve.cli --latency-budget 0.5 --no-such-flag")) == {
        "--no-such-flag"
    }
    assert unknown_flags(shlex.split("python -m llava.train.train --output_dir x --lora_enable True")) == set()


def test_commands_are_read_from_indented_and_fenced_code() -> None:
    text = "Text: bash x.\n\n    bash a.sh --b \\\n      --c  # why\n\n```bash\n$ python -m d \\\n  --e\nls\n```\n"
    assert commands(text) == [["bash", "a.sh", "--b", "--c"], ["python", "-m", "d", "--e"]]


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_gap(name: str) -> None:
    assert "@@" not in (ROOT / name).read_text(encoding="utf-8")
