"""Words that CONTRIBUTING.md's GLOSSARY replaces, in identifiers, docstrings, comments and help texts.

Other string literals are data (prompts, questions, answers, benchmark files) and are not read.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from source_checks.sources import Finding, Source

# In names, docstrings, comments and help texts.
FORBIDDEN = {
    "picture": r"pictures?|pictured",
    "tell": r"tells?|telling",
    "told": r"told",
    "gone": r"gone",
    "foretold": r"foretold|foretells?|foretelling",
    "mend": r"mend(?:s|ed|ing)?",
    "mendable": r"mendable",
    "beside": r"beside",
    "behind": r"behind",
    "in front of": r"in front of",
    "likewise": r"likewise",
    "at hand": r"at hand",
    "of its own": r"of (?:its|their) own",
    "heed": r"heed(?:s|ed|ing)?",
    "twin": r"twins?",
    "dealt out": r"deal(?:s|t|ing)? (?:it |them )?out",
    "room": r"(?<!chat )rooms?(?! (?:for|in|left|to)\b)",  # the package; room for more tokens is plain English
    "facts": r"facts",
    "safe between threads": r"safe between threads",
    "first token after": r"first token after",
    "time per further token": r"time per further token",
    "beside-then-rename": r"beside-then-rename",
    "first seen": r"first[ -]seen",
}
# In names only: in a sentence, and in the name of a test, which is one, they are plain English ("at least").
FORBIDDEN_IN_NAMES = {"least", "most", "whole", "place", "places", "sort", "sorts", "together", "dealt"}
# Of the GLOSSARY's table, what only a reader can judge: each is the right word for something else.
JUDGED_BY_READERS = {"full (of a layer)", "known", "point"}

_PROSE = re.compile(rf"(?<![\w-])(?:{'|'.join(FORBIDDEN.values())})(?![\w-])", re.IGNORECASE)
_NAME = re.compile("|".join((*FORBIDDEN.values(), *FORBIDDEN_IN_NAMES)), re.IGNORECASE)
_WORDS_OF_A_NAME = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
HELP_KEYWORDS = {"help", "help_text", "description", "epilog", "title"}


def table_words(contributing: str) -> set[str]:
    """Return the right column of the GLOSSARY's table: words not to use, as they stand there."""
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", contributing.partition("## GLOSSARY")[2], re.MULTILINE)
    cells = [re.sub(r" \(in names\)", "", row) for row in rows[2:]]
    return {word.strip() for cell in cells for word in cell.split(",") if word.strip()}


def forbidden_words(sources: Sequence[Source]) -> list[Finding]:
    """Return where a forbidden word stands in an identifier, a docstring, a comment or a help text."""
    found = []
    for source in sources:
        parts = (*_names(source), *_docstrings(source), *_comments(source), *_help_texts(source))
        found += sorted(set(parts), key=lambda finding: (finding.line, finding.text))
    return found


def forbidden_in_page(root: Path, path: str) -> list[Finding]:
    """Return where a forbidden word stands in a Markdown page, its code and the GLOSSARY's table left out."""
    found, fenced = [], False
    for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## GLOSSARY"):
            break
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            found += _in_prose(path, number, re.sub(r"`[^`]*`|\([^)]*\.\w+\)", "", line), "page")
    return found


def _in_prose(path: str, line: int, text: str, kind: str) -> Iterator[Finding]:
    for offset, part in enumerate(text.splitlines()):
        for match in _PROSE.finditer(part):
            yield Finding(path, line + offset, f"{kind}: {match[0].lower()}")


def _names(source: Source) -> Iterator[Finding]:
    """Yield the names that a file defines: modules, classes, functions, parameters, variables, attributes."""
    yield from _in_name(source, 1, Path(source.path).stem)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _in_name(source, node.lineno, node.name)
        elif isinstance(node, ast.arg):
            yield from _in_name(source, node.lineno, node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield from _in_name(source, node.lineno, node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from _in_name(source, node.lineno, node.attr)
        elif isinstance(node, ast.alias) and node.asname:
            yield from _in_name(source, node.lineno, node.asname)


def _in_name(source: Source, line: int, name: str) -> Iterator[Finding]:
    forbidden = _PROSE if name.startswith("test_") else _NAME
    if any(forbidden.fullmatch(word) for word in _WORDS_OF_A_NAME.findall(name)):
        yield Finding(source.path, line, f"name: {name}")


def _docstrings(source: Source) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield from _in_prose(source.path, first.lineno, first.value.value, "docstring")


def _comments(source: Source) -> Iterator[Finding]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield from _in_prose(source.path, token.start[0], token.string, "comment")


def _help_texts(source: Source) -> Iterator[Finding]:
    """Yield from ``help=``, ``description=`` and the like, ``{"help": ...}``, and ``flag(default, help_text)``."""
    for node in ast.walk(source.tree):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg in HELP_KEYWORDS]
            if isinstance(node.func, ast.Name) and node.func.id == "flag":
                values += node.args[1:2]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "help"]
        for value in values:
            for part in ast.walk(value) if value is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from _in_prose(source.path, part.lineno, part.value, "help")
