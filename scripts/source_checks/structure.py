"""Sizes of files, functions and folders, and the imports between modules."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

from source_checks.sources import Finding, Source

# What CONTRIBUTING asks for, about 250 and 40 lines, and some slack: a signature of 17 parameters is 18 of them.
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 270, 60, 20


def file_lines(sources: Sequence[Source]) -> list[Finding]:
    """Return each file with its number of lines (as ``line``)."""
    return [Finding(source.path, len(source.text.splitlines()), "lines in the file") for source in sources]


def function_lines(sources: Sequence[Source]) -> list[tuple[int, Finding]]:
    """Return each function's number of lines, decorators not counted, and where it is."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, Finding(source.path, node.lineno, node.name))
        for source in sources
        for node in source.functions()
    ]


def modules_per_folder(sources: Sequence[Source]) -> Counter[str]:
    """Count the modules of each folder; ``__init__.py`` is the folder itself and does not count."""
    return Counter(
        source.path.rpartition("/")[0] for source in sources if not source.path.endswith(("__init__.py", "conftest.py"))
    )


def imported_modules(source: Source, known: set[str]) -> set[str]:
    """Return the modules of ``known`` that a file imports, lazily or not; for type checkers only does not count."""
    found = set()
    for node in _run_time_nodes(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                found.add(member if member in known else node.module)
    return (found & known) - {source.module}


def import_cycles(sources: Sequence[Source]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or by way of others."""
    known = {source.module for source in sources}
    graph = {source.module: sorted(imported_modules(source, known)) for source in sources}
    reachable = {module: _reachable(graph, module) for module in graph}
    cycles: list[list[str]] = []
    for module in sorted(graph):
        group = sorted(other for other in reachable[module] if module in reachable[other])
        if group and group not in cycles:
            cycles.append(group)
    return cycles


def imports_of_package(sources: Sequence[Source], package: str) -> list[Finding]:
    """Return where a module of ``package`` is named: in an import of any kind, or as a string (``import_module``)."""
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            for name in names:
                if name == package or (name.startswith(f"{package}.") and " " not in name):
                    found.append(Finding(source.path, getattr(node, "lineno", 1), name))
    return found


def _reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below ``node`` but those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield statement
                yield from _run_time_nodes(statement)
            continue
        yield child
        yield from _run_time_nodes(child)
