"""Every public name of upstream's tree can be imported and takes upstream's arguments, or is in the README's table."""

import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HEADING = "## Upstream's names that are not here"
NAMES = json.loads((Path(__file__).parent / "upstream_names.json").read_text())["modules"]
ABSTRACT = "ABC"  # a base that decides nothing for those who import a class


def listed_exceptions(root: Path) -> dict[str, set[str]]:
    """Module -> the names in the README's table; "all" for a module that is not here."""
    page = (root / "llava" / "README.md").read_text(encoding="utf-8")
    section = page.partition(HEADING)[2].partition("<!-- files -->")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    assert rows and all(len(row) == 3 and row[2].strip() for row in rows), "each row has a module, names and a reason"
    return {row[0].strip(" `"): set(re.findall(r"`([^`]+)`", row[1])) or {row[1].strip()} for row in rows}


def parameters_of(signature: str) -> tuple[list[str], list[str], bool]:
    """``"(a, b=, **kwargs)"`` -> required and optional names by position, and whether any keyword is taken."""
    words = [word.strip() for word in signature.strip("()").split(",") if word.strip()]
    plain = [word for word in words if not word.startswith("*")]
    required = [word for word in plain if not word.endswith("=")]
    return required, [word[:-1] for word in plain if word.endswith("=")], "**kwargs" in words


def misfit(function: object, signature: str) -> str | None:
    """Why a call that upstream's signature allows would fail; None where each works, by position and by name."""
    required, optional, any_keyword = parameters_of(signature)
    found = inspect.signature(function)
    own = list(found.parameters.values())
    by_position = [p.name for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
    takes_all = {p.kind for p in own} >= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    wanted = [*required, *optional]
    if by_position[: len(wanted)] != wanted and not takes_all:
        return f"takes {found}, upstream's {signature}"
    if any_keyword and not any(p.kind is p.VAR_KEYWORD for p in own):
        return f"takes no further keywords: {found}"
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {p.name for p in own if p.default is p.empty and p.kind not in variadic}
    return f"also needs {sorted(needed - set(required))}" if needed - set(required) else None


def class_misfits(name: str, kind: type, recorded: dict) -> Iterator[tuple[str, str]]:
    """The parts of a class that do not fit: (name, why)."""
    lineage = {base.__name__ for base in kind.__mro__}
    for base in recorded["bases"]:
        if base.rpartition(".")[2] not in {*lineage, ABSTRACT}:
            yield name, f"is no {base}"
    for field in recorded["fields"]:
        if field not in getattr(kind, "__dataclass_fields__", {}) and not hasattr(kind, field):
            yield f"{name}.{field}", "missing"
    for method, signature in recorded["methods"].items():
        found = inspect.getattr_static(kind, method, None)
        if found is None:
            yield f"{name}.{method}", "missing"
        elif not isinstance(found, property):
            why = misfit(getattr(found, "__func__", found), signature)
            if why:
                yield f"{name}.{method}", why


def misfits(module: str) -> dict[str, str]:
    """Names of upstream's module that are missing here, or differ: name -> why."""
    if importlib.util.find_spec(module) is None:
        return {"all": "the module is missing"}
    here, found = importlib.import_module(module), {}
    for name, recorded in NAMES[module].items():
        if not hasattr(here, name):
            found[name] = "missing"
        elif isinstance(recorded, dict):
            found.update(class_misfits(name, getattr(here, name), recorded))
        elif recorded != "value" and (why := misfit(getattr(here, name), recorded)):
            found[name] = why
    return found


def covers(entry: str, name: str) -> bool:
    """Whether a table's entry is the name, or (``Class.*``) a part of the class."""
    return name == entry or (entry.endswith(".*") and name.startswith(entry[:-1]))


@pytest.mark.parametrize("module", NAMES)
def test_module_has_upstreams_names_and_signatures(root, module):
    listed = listed_exceptions(root).get(module, set())
    found = misfits(module)
    unlisted = {name: why for name, why in found.items() if not any(covers(entry, name) for entry in listed)}
    assert not unlisted
    stale = {entry for entry in listed if not any(covers(entry, name) for name in found)}
    assert not stale, "the table lists names that are here"


def test_table_lists_modules_of_upstream_only(root):
    assert listed_exceptions(root).keys() <= NAMES.keys()


@pytest.mark.parametrize(
    ("function", "signature", "fits"),
    [
        (lambda a, b=1: None, "(a, b=)", True),
        (lambda a, b=1, *, c=2: None, "(a, b=)", True),
        (lambda a, b: None, "(a, b=)", False),
        (lambda b, a: None, "(a, b)", False),
        (lambda x, b=1: None, "(a, b=)", False),
        (lambda a: None, "(a, **kwargs)", False),
        (lambda a, *, c: None, "(a)", False),
        (lambda *args, **kwargs: None, "(a, b=)", True),
        (lambda a: None, "()", False),
    ],
)
def test_misfit_is_found(function, signature, fits):
    assert (misfit(function, signature) is None) == fits


def test_copy_is_that_of_the_recorded_names(golden):
    """The file next to this test says what the shared record says, in fewer words."""
    file = golden.parent / "upstream_names.json"
    if not file.is_file():
        pytest.skip(f"no {file}")

    def short(recorded: dict) -> str:
        words = [*recorded["required"], *(f"{name}=" for name in recorded["optional"])]
        words += ["*args"] * recorded["varargs"] + ["**kwargs"] * recorded["kwargs"]
        assert not recorded["keyword_only"]
        return f"({', '.join(words)})"

    full = json.loads(file.read_text())["modules"]
    assert full.keys() == NAMES.keys()
    for module, names in full.items():
        for name, recorded in names.items():
            copied = NAMES[module][name]
            if recorded["kind"] == "class":
                methods = {method: short(own) for method, own in recorded["methods"].items()}
                assert copied == {"bases": recorded["bases"], "fields": recorded["fields"], "methods": methods}
            else:
                assert copied == ("value" if recorded["kind"] == "value" else short(recorded))
