"""Measures the sources: sizes, import cycles, types, docstrings, format, forbidden words.

python scripts/figures.py                      # a table
python scripts/figures.py --check              # exit code 1 where a limit is broken
python scripts/figures.py --list words         # each finding, as file:line
python scripts/figures.py --at 66833b2 --json  # of another commit
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from source_checks import glossary, signatures, structure
from source_checks.sources import PACKAGES, Finding, Source, read_sources

ROOT = Path(__file__).resolve().parent.parent
MAX_ANY_PERCENT = 5.0


@dataclass
class Figure:
    """One row: a value, its limit (None: for information), and what breaks it."""

    name: str
    what: str
    value: float
    limit: float | None = None
    unit: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether the value is over its limit."""
        return self.limit is not None and self.value > self.limit


def measure(root: Path, with_mypy: bool = True) -> list[Figure]:
    """Return all figures of the checkout at ``root``."""
    everything = read_sources(root)
    product = read_sources(root, (*PACKAGES, "scripts"))
    packages = [source for source in everything if source.package in PACKAGES]
    figures = [*_sizes(product), *_structure(everything, packages), *_signatures(packages, product)]
    pages = [path.relative_to(root).as_posix() for path in root.rglob("*.md") if not _is_hidden(path.relative_to(root))]
    words = glossary.forbidden_words(everything)
    page_words = [finding for page in sorted(pages) for finding in glossary.forbidden_in_page(root, page)]
    figures += [
        _count("words", "forbidden words in names, docstrings, comments, help", words),
        _count("page-words", "forbidden words in pages", page_words),
        _count("format", "files not formatted", _unformatted(root)),
    ]
    if with_mypy:
        figures.append(_count("mypy", "mypy --strict errors", _mypy_errors(root)))
    return figures


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "runs" for part in path.parts)


def _count(name: str, what: str, findings: list[Finding], limit: float | None = 0) -> Figure:
    return Figure(name, what, len(findings), limit, "", findings)


def _sizes(sources: Sequence[Source]) -> list[Figure]:
    files = structure.file_lines(sources)
    functions = structure.function_lines(sources)
    long_files = [finding for finding in files if finding.line > structure.MAX_FILE_LINES]
    long_functions = [where for lines, where in functions if lines > structure.MAX_FUNCTION_LINES]
    rows = []
    for name, lengths, limit, over in (
        ("file", [finding.line for finding in files], structure.MAX_FILE_LINES, long_files),
        ("function", [lines for lines, _ in functions], structure.MAX_FUNCTION_LINES, long_functions),
    ):
        rows += [
            Figure(f"{name}s", f"{name}s", len(lengths)),
            Figure(f"{name}-median", f"lines of a {name}, median", statistics.median(lengths)),
            Figure(f"{name}-p90", f"lines of a {name}, p90", statistics.quantiles(lengths, n=10)[-1]),
            Figure(f"{name}-max", f"lines of a {name}, maximum", max(lengths), limit, "", over),
        ]
    return rows


def _structure(everything: Sequence[Source], packages: Sequence[Source]) -> list[Figure]:
    folders = structure.modules_per_folder(everything)
    full = [Finding(folder, count, "modules") for folder, count in sorted(folders.items())]
    cycles = [Finding(group[0], 1, " <-> ".join(group)) for group in structure.import_cycles(packages)]
    shell = [source for source in packages if source.package == "llava"]
    return [
        Figure(
            "folder-max",
            "modules in a folder, maximum",
            max(folders.values()),
            structure.MAX_MODULES,
            "",
            [finding for finding in full if finding.line > structure.MAX_MODULES],
        ),
        _count("cycles", "import cycles, lazy imports included", cycles),
        _count("overlay", "imports of ada in llava", structure.imports_of_package(shell, "ada")),
    ]


def _signatures(packages: Sequence[Source], product: Sequence[Source]) -> list[Figure]:
    typed, bare = signatures.typed_parameters(packages)
    share = round(100 * len(bare) / max(typed, 1), 1)
    return [
        Figure("typed", "typed parameters", typed),
        Figure("any", "of these, bare Any", share, MAX_ANY_PERCENT, " %", bare),
        _count("missing-docstrings", "public names without a docstring", signatures.missing_docstrings(product)),
        _count("short-docstrings", "public docstrings of fewer than 4 words", signatures.short_docstrings(product)),
    ]


def _unformatted(root: Path) -> list[Finding]:
    command = [sys.executable, "-m", "ruff", "format", "--check", "--output-format", "concise", "."]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True)
    names = re.findall(r"^(.+?):\d+:\d+: unformatted", shown.stdout, re.MULTILINE)
    if shown.returncode and not names:
        raise SystemExit(f"ruff format: {shown.stderr.strip()}")
    return [Finding(name, 1, "not formatted") for name in names]


def _mypy_errors(root: Path) -> list[Finding]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if shown.returncode not in (0, 1):
        raise SystemExit(f"mypy: {(shown.stderr or shown.stdout).strip()}")
    errors = re.findall(r"^([^:\n]+):(\d+): error: (.+)$", shown.stdout, re.MULTILINE)
    return [Finding(path, int(line), text) for path, line, text in errors]


def show(figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    for figure in figures:
        limit = "" if figure.limit is None else f"<= {figure.limit:g}{figure.unit}"
        mark = "  over the limit" if figure.broken else ""
        print(f"{figure.name:20} {figure.value:8g}{figure.unit:2}  {limit:8} {figure.what}{mark}")


def list_findings(figure: Figure) -> None:
    """Print where a figure comes from, then the count of each package."""
    for finding in figure.findings:
        print(finding)
    packages = Counter("/".join(finding.path.split("/")[:2]) for finding in figure.findings)
    for package, count in packages.most_common():
        print(f"{count:6} {package}", file=sys.stderr)


def tree_of(commit: str, folder: Path) -> Path:
    """Write the tree of a commit into ``folder``."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"error: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def main() -> int:
    """Print the figures; the exit code is 1 where ``--check`` finds a limit broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--check", action="store_true", help="exit with code 1 where a limit is broken")
    parser.add_argument("--list", metavar="NAME", help="print each finding that a figure counts; NAME as in the table")
    parser.add_argument("--at", metavar="COMMIT", help="measure the tree of another commit")
    parser.add_argument("--no-mypy", action="store_true", help="leave out mypy, which takes about a minute")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = ROOT if args.at is None else tree_of(args.at, Path(folder))
        figures = measure(root, with_mypy=not args.no_mypy and args.list in (None, "mypy"))
    if args.list is not None:
        named = {figure.name: figure for figure in figures}
        if args.list not in named:
            parser.error(f"--list {args.list}: unknown; there are {', '.join(named)}")
        list_findings(named[args.list])
    elif args.json:
        print(json.dumps({figure.name: {**asdict(figure), "findings": len(figure.findings)} for figure in figures}))
    else:
        show(figures)
    return int(args.check and any(figure.broken for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
