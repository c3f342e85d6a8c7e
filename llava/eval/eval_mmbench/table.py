"""Reads MMBench's table of questions: a tab-separated file with an image in every line."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.scoring.matching import by_id
from llava.files.fields import shown
from llava.files.jsonl import read_text

OPTIONS = ("A", "B", "C", "D")
NEEDED = ("index", "question", *OPTIONS)
# Cells that upstream, through pandas, reads as missing.
MISSING = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null,".split(",")
)
MAX_CELL = 1 << 30  # characters; an image is one cell
MAX_DIGITS = 18  # of an index

Row = dict[str, str | None]


def is_none(value: object) -> bool:
    """Return whether a cell is missing: None, NaN, or their names as text; an empty text is not missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.lower() in ("nan", "none")


def read_table(path: Path, flag: str) -> list[Row]:
    """Read the rows of the file that ``flag`` names; missing cells are None.

    Raises ``DataError`` for a file that lacks columns, has no rows, or has an index twice.
    """
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(io.StringIO(read_text(path, flag), newline=""), delimiter="\t")
    try:
        lacking = [name for name in NEEDED if name not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(f"{flag} {path} lacks the columns {', '.join(lacking)}; expected MMBench's .tsv")
        rows = list(_rows(reader, f"{flag} {path}"))
    except csv.Error as error:
        raise DataError(f"{flag} {path}, line {reader.line_num} is no line of a table: {error}") from error
    if not rows:
        raise DataError(f"{flag} {path} holds no questions")
    by_id(rows, "index", f"{flag} {path}")
    return rows


def _rows(reader: csv.DictReader[str], where: str) -> Iterator[Row]:
    for row in reader:
        index = row["index"] or ""
        if not index.isdecimal() or len(index) > MAX_DIGITS:
            raise DataError(f"{where}, line {reader.line_num}: index is {shown(index)}; expected an integer")
        cells = {name: None if cell is None or cell in MISSING else cell for name, cell in row.items() if name}
        yield {**cells, "index": str(int(index))}


def get_options(row: Mapping[str, Any], options: Iterable[str]) -> list[Any]:
    """Return a row's cells in the columns ``options``, up to the first that is missing."""
    return list(itertools.takewhile(lambda cell: not is_none(cell), (row[letter] for letter in options)))


def options_of(row: Row) -> list[str]:
    """Return a question's options, up to the first that is missing."""
    return get_options(row, OPTIONS)
