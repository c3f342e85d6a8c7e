"""Python files of a checkout, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("llava", "ada", "playground")
FOLDERS = (*PACKAGES, "scripts", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """One place in the sources that a check names."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Source:
    """A Python file of the checkout ``root``."""

    root: Path
    path: str  # below root, with forward slashes

    @cached_property
    def text(self) -> str:
        """The text of the file."""
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        """The dotted name that imports the file."""
        parts = Path(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The folder at the top of the checkout."""
        return self.path.split("/")[0]

    def functions(self) -> Iterator[Function]:
        """Yield all functions and methods, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


def read_sources(root: Path, folders: Sequence[str] = FOLDERS) -> list[Source]:
    """Return the Python files in ``folders``, sorted by path; folders that do not exist are left out."""
    paths = (path.relative_to(root).as_posix() for folder in folders for path in (root / folder).rglob("*.py"))
    return [Source(root, path) for path in sorted(paths)]
