"""Writes what ``--help`` of every program says to tests/e2e/help/, one option a line.

python scripts/help_texts.py           # after a flag has changed
python scripts/help_texts.py --check   # exit code 1 where a text is out of date
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ROOT / "tests" / "e2e" / "help"
FOLDERS = ("llava", "ada", "playground", "scripts")
SAME_PROGRAM = {  # the file that holds a program, where users start it by another name
    "ada.latency.calibrate": "ada.calibrate",
    "llava.train.train_mem": "llava.train.train",
    "llava.train.train_xformers": "llava.train.train",
}
INHERITED = "and the flags of transformers.TrainingArguments"


class _ParserReady(BaseException):
    """Stops a program as it is about to read its flags; not an Exception, so that no program handles it."""


def programs(root: Path = ROOT) -> list[str]:
    """Return the names of all programs: ``ada.cost`` for ``python -m ada.cost``, ``scripts/lock.py`` for a script."""
    names = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
                relative = path.relative_to(root)
                module = ".".join(relative.with_suffix("").parts).removesuffix(".__main__")
                names.append(relative.as_posix() if folder == "scripts" else module)
    return [name for name in names if name not in SAME_PROGRAM]


def text_path(program: str) -> Path:
    """Return the file that holds a program's text."""
    return TEXTS / f"{program.removesuffix('.py').replace('/', '.')}.txt"


def parser_of(program: str) -> argparse.ArgumentParser:
    """Return the parser that a program is about to use. Nothing else of the program runs."""
    parsers = []

    def keep(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        parsers.append(parser)
        raise _ParserReady

    if program.startswith("scripts/"):
        module = importlib.import_module(Path(program).stem)
    else:
        is_package = (ROOT / program.replace(".", "/")).is_dir()
        module = importlib.import_module(f"{program}.__main__" if is_package else program)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", keep),
        mock.patch.object(sys, "argv", [program]),
    ):
        try:
            module.parse_arguments([]) if hasattr(module, "parse_arguments") else module.main()
        except _ParserReady:
            return parsers[0]
    raise LookupError(f"{program} reads no flags")


def help_text(program: str) -> str:
    """Return a program's text: description, then each option of it and of its sub-commands on a line."""
    start = f"usage: python {program if program.startswith('scripts/') else f'-m {program}'}"
    return "\n".join(_lines(parser_of(program), start)) + "\n"


def known_flags(text: str, command: str | None = None) -> set[str]:
    """Return the flags that a text lists, of the program or of one of its sub-commands."""
    sections = re.split(r"^(?=usage: )", text, flags=re.MULTILINE)[1:]
    chosen = [part for part in sections if command and part.partition("\n")[0].endswith(f" {command}")]
    listed = re.findall(r"^  (-[^:]*)", (chosen or sections)[0], re.MULTILINE)
    flags = {flag for line in listed for flag in re.findall(r"(?<!\S)--?[\w-]+", line)}
    if INHERITED in text:
        from transformers import TrainingArguments

        flags |= {f"--{name}" for name in TrainingArguments.__dataclass_fields__}
    return flags


def _lines(parser: argparse.ArgumentParser, start: str) -> Iterator[str]:
    yield start
    for paragraph in (parser.description or "").strip().split("\n\n"):
        commands = paragraph.lstrip().startswith("python ")  # one a line; a text is one line
        yield from (" ".join(line.split()) for line in (paragraph.splitlines() if commands else [paragraph]))
    inherited = _inherited_fields(parser)
    subcommands: dict[str, argparse.ArgumentParser] = {}
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
        lines = []
        for action in actions:
            if isinstance(action, argparse._SubParsersAction):
                subcommands.update(action.choices)
                lines += [
                    f"  {choice.dest}: {' '.join((choice.help or '').split())}" for choice in action._choices_actions
                ]
            elif action.dest not in inherited and action.dest != "help":
                lines.append("  " + _option(action, parser))
        if lines:
            yield f"{group.title}:"
            yield from lines
    if inherited:
        yield INHERITED
    for name, command in subcommands.items():
        yield ""
        yield from _lines(command, f"{start} {name}")


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Return one option's line: flags, metavar, default, help."""
    formatter = argparse.HelpFormatter(parser.prog)
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.nargs != 0:
        name += f" {formatter._format_args(action, formatter._get_default_metavar_for_optional(action))}"
    text = (action.help or "").removesuffix(" (default: %(default)s)")
    expanded = formatter._expand_help(_with_help(action, text)) if text else ""
    return f"{name}{_default(action)}: {' '.join(expanded.split())}".rstrip(": ")


def _with_help(action: argparse.Action, text: str) -> argparse.Action:
    changed = object.__new__(type(action))
    changed.__dict__ = {**vars(action), "help": text}
    return changed


def _default(action: argparse.Action) -> str:
    """Return a default that says something, and the same on every machine."""
    default = action.default
    if default is None or default is False or default == argparse.SUPPRESS or default in ("", [], ()):
        return ""
    return "" if isinstance(default, Path) or callable(default) else f" [{_plain(default)}]"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return str(getattr(value, "value", value)).replace(f"{ROOT}/", "")


def _inherited_fields(parser: argparse.ArgumentParser) -> set[str]:
    """Return the fields of dataclasses that transformers declares; they change with its version."""
    found = set()
    for kind in getattr(parser, "dataclass_types", ()):
        for base in kind.__mro__:
            if base.__module__.startswith("transformers."):
                found |= set(inspect.get_annotations(base)) - set(inspect.get_annotations(kind))
    return found


def main() -> int:
    """Write the texts, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with code 1 where a text is out of date"
    )
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.insert(0, str(ROOT))
    texts = {text_path(program): help_text(program) for program in programs()}
    existing = {path: path.read_text(encoding="utf-8") for path in TEXTS.glob("*.txt")}
    changed = sorted(path for path in {*texts, *existing} if texts.get(path) != existing.get(path))
    for path in changed:
        print(f"{path.relative_to(ROOT)}: out of date" if args.check else path.relative_to(ROOT))
        if not args.check and path in texts:
            path.write_text(texts[path], encoding="utf-8")
        elif not args.check:
            path.unlink()
    return int(args.check and bool(changed))


if __name__ == "__main__":
    raise SystemExit(main())
