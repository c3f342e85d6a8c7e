"""Reads MMBench's table of questions: a tab-separated file with an image in every line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from llava.errors import DataError
from llava.files.jsonl import read_text

OPTIONS = ("A", "B", "C", "D")
NEEDED = ("index", "question", *OPTIONS)
# Cells that upstream, through pandas, reads as missing.
MISSING = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null,".split(",")
)
MAX_CELL = 1 << 30  # characters; an image is one cell

Row = dict[str, str | None]


def is_none(value: object) -> bool:
    """Return whether a cell is missing: None, NaN, or their names as text; an empty text is not missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.lower() in ("nan", "none")


def read_table(path: Path, flag: str) -> list[Row]:
    """Read the rows of the file that ``flag`` names; missing cells are None.

    Raises ``DataError`` for a file that lacks columns, or has no rows.
    """
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(io.StringIO(read_text(path, flag), newline=""), delimiter="\t")
    lacking = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(f"{flag} {path} lacks the columns {', '.join(lacking)}; expected MMBench's .tsv")
    rows = list(_rows(reader, f"{flag} {path}"))
    if not rows:
        raise DataError(f"{flag} {path} holds no questions")
    return rows


def _rows(reader: csv.DictReader[str], where: str) -> Iterator[Row]:
    for row in reader:
        if not str(row["index"]).isdigit():
            raise DataError(f"{where}, line {reader.line_num}: index is {row['index']!r}; expected an integer")
        yield {name: None if cell is None or cell in MISSING else cell for name, cell in row.items() if name}


def options_of(row: Row) -> list[str]:
    """Return a question's options, up to the first that is missing."""
    options: list[str] = []
    for letter in OPTIONS:
        text = row[letter]
        if text is None or is_none(text):
            break
        options.append(text)
    return options
