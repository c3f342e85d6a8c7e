"""Puts what pydantic found wrong in a request's body into words: each field at fault, its value, what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MAX_REPORTED = 5  # fields of one body that a message lists
MAX_SHOWN = 60  # characters of a value, and of a name
# pydantic's types of problems, in our words; others are pydantic's own words without their beginning.
EXPECTED = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of fewer digits",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
    "string_pattern_mismatch": "a text without control characters",
    "string_unicode": "a text that UTF-8 can encode",
}
OF_TYPE = {name for name in EXPECTED if name.endswith(("_type", "_parsing"))}
BOUNDS = ("less_than", "less_than_equal", "greater_than", "greater_than_equal")
TAGS = ("union_tag_invalid", "union_tag_not_found")
NAMES = ("literal_error", "union_tag_invalid")
MISSING = ("missing", "union_tag_not_found")
BEGINNINGS = ("Input should be ", "String should have ", "List should have ", "Value should have ", "Value error, ")
Path = tuple[str | int, ...]


def describe_problems(problems: Sequence[Mapping[str, Any]], body: object) -> tuple[str, str | None]:
    """Return a message about the fields at fault, and the first one's name; ``problems``: pydantic's, of ``body``.

    pydantic reports each member of a union by the member's own name, which says nothing to a client: a field is named
    by where it is in the body, once, with all that was expected.
    """
    found: dict[Path, list[Mapping[str, Any]]] = {}
    for problem in problems:
        found.setdefault(_path(problem, body), []).append(problem)
    deepest = [
        path for path in found if not any(len(other) > len(path) and other[: len(path)] == path for other in found)
    ]
    texts = [_describe(path, found[path], body) for path in deepest[:MAX_REPORTED]]
    field = next((str(path[0])[:MAX_SHOWN] for path in deepest if path and isinstance(path[0], str)), None)
    return "; ".join(texts), field


def _path(problem: Mapping[str, Any], body: object) -> Path:
    """Return where in the body a problem is, without the names of a union's members."""
    location = tuple(problem["loc"])
    location = location[1:] if location[:1] == ("body",) else location
    path: list[str | int] = []
    for part in location:
        if not _has(body, part):
            continue
        path.append(part)
        body = body[part]  # type: ignore[index]
    if problem["type"] == "missing":
        path += location[-1:]
    if problem["type"] in TAGS:
        path.append(problem["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _has(body: object, part: str | int) -> bool:
    if isinstance(body, list):
        return isinstance(part, int) and part < len(body)
    return isinstance(body, Mapping) and part in body


def _describe(path: Path, problems: Sequence[Mapping[str, Any]], body: object) -> str:
    name = ".".join(_shown(str(part)) for part in path) or "the body"
    if any(problem["type"] in MISSING for problem in problems):
        return f"{name} is missing"
    said = next((problem for problem in problems if problem["type"] == "value_error"), None)
    if said is not None:
        return f"{name}: {_expected(said)}"
    for part in path:
        body = body[part]  # type: ignore[index]
    # A value of the right type says more than the types that it does not have.
    informative = [problem for problem in problems if problem["type"] not in OF_TYPE] or problems
    expected = list(dict.fromkeys(_expected(problem) for problem in informative))
    value = _value(body, is_name=any(problem["type"] in NAMES for problem in informative))
    return f"{name}{value}: expected {' or '.join(expected)}"


def _expected(problem: Mapping[str, Any]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in EXPECTED:
        return EXPECTED[kind]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}"
    text = str(problem["msg"])[:300].replace(" after validation", "")
    for beginning in BEGINNINGS:
        text = text.removeprefix(beginning)
    return f"a value {text}" if kind in BOUNDS else text


def _value(value: object, is_name: bool) -> str:
    """Return " is VALUE" for a short one, else nothing; texts may be secret, and are shown only for names."""
    if value is None or isinstance(value, bool | int | float) or (is_name and isinstance(value, str)):
        text = json.dumps(value)
        return f" is {text}" if len(text) <= MAX_SHOWN else ""
    return ""


def _shown(name: str) -> str:
    return (name if name.isprintable() else ascii(name))[:MAX_SHOWN]
