"""Types of parameters, and docstrings of what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from source_checks.sources import Finding, Function, Source

MIN_WORDS = 4
ANY = {"Any", "typing.Any", "Any | None", "None | Any", "Optional[Any]"}


def typed_parameters(sources: Sequence[Source]) -> tuple[int, list[Finding]]:
    """Return the number of annotated parameters, and those of them that are ``Any`` or ``Any | None``.

    ``*args`` and ``**kwargs`` pass on what another function checks, and are not counted.
    """
    count, bare = 0, []
    for source in sources:
        for function in source.functions():
            arguments = function.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if argument.annotation is not None:
                    count += 1
                    if ast.unparse(argument.annotation).strip("'\"") in ANY:
                        bare.append(Finding(source.path, argument.lineno, f"{function.name}({argument.arg}: Any)"))
    return count, bare


def missing_docstrings(sources: Sequence[Source]) -> list[Finding]:
    """Return public modules, classes, functions and methods without a docstring."""
    return [finding for finding, text in _public(sources) if text is None]


def short_docstrings(sources: Sequence[Source]) -> list[Finding]:
    """Return public docstrings of fewer than four words."""
    return [
        Finding(finding.path, finding.line, f"{finding.text}: {text!r}")
        for finding, text in _public(sources)
        if text is not None and len(text.split()) < MIN_WORDS
    ]


def _public(sources: Sequence[Source]) -> Iterator[tuple[Finding, str | None]]:
    """Yield everything public with its docstring; what stands inside a function is private to it."""
    for source in sources:
        if not source.path.endswith("__init__.py") or source.text.strip():
            yield Finding(source.path, 1, source.module), ast.get_docstring(source.tree)
        yield from _members(source, source.tree, in_protocol=False)


def _members(
    source: Source, parent: ast.Module | ast.ClassDef, in_protocol: bool
) -> Iterator[tuple[Finding, str | None]]:
    for node in _statements(parent):
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, Function) and (_is_overload(node) or (in_protocol and _is_stub(node))):
            continue
        yield Finding(source.path, node.lineno, node.name), ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            yield from _members(source, node, any("Protocol" in ast.unparse(base) for base in node.bases))


def _statements(parent: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a module or a class, those under ``if`` and ``try`` too."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements(node)
        elif isinstance(node, ast.stmt):
            yield node


def _is_overload(node: Function) -> bool:
    return any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in node.decorator_list)


def _is_stub(node: Function) -> bool:
    """Return whether a function's body is ``...``: a protocol's member, described by the protocol."""
    body = node.body[0]
    return len(node.body) == 1 and isinstance(body, ast.Expr) and ast.unparse(body) == "..."
