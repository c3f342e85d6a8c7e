"""Command-line flags from dataclass fields: each flag, its default and its help are declared once, in the field."""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from llava.errors import OptionError

Settings = TypeVar("Settings")


def flag(default: Any, help_text: str, *, name: str | None = None, **options: Any) -> Any:
    """Declare a dataclass field that is a flag.

    name: the flag, by default ``--field-name``. options: of ``add_argument``, such as ``metavar`` or ``choices``; with
    ``unit`` (an int) the flag is given in this many of the field's own units: ``unit=1024**2`` reads MiB for a field in
    bytes.
    """
    return dataclasses.field(default=default, metadata={"help": help_text, "flag": name, **options})


def add_dataclass_flags(
    parser: argparse.ArgumentParser,
    settings: type,
    title: str | None = None,
    also: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Add a flag to ``parser`` for each field of the dataclass ``settings`` that was declared with ``flag``.

    title: of the group of flags in ``--help``; by default the first line of the dataclass's docstring. also: field ->
    a second name of its flag.
    """
    group = parser.add_argument_group(title or (settings.__doc__ or settings.__name__).splitlines()[0].rstrip("."))
    kinds = typing.get_type_hints(settings)
    for field in _flag_fields(settings):
        options = {key: value for key, value in field.metadata.items() if key not in ("flag", "unit")}
        default, unit = field.default, field.metadata.get("unit")
        kind = _plain_type(kinds[field.name])
        if unit is not None:
            default, kind = (None if default is None else default / unit), float
        names = [_flag_of(field), *([also[field.name]] if field.name in also else [])]
        if kind is bool:
            group.add_argument(*names, action="store_true", default=default, **options)
        else:
            group.add_argument(*names, type=kind, default=default, **options)


def from_flags(settings: type[Settings], args: argparse.Namespace | Mapping[str, Any]) -> Settings:
    """Make a ``settings`` from parsed arguments, by the names of their flags.

    Fields whose flag is not among them keep their defaults. Raises OptionError for a flag with a unit that is not
    finite, and what the dataclass's own checks raise.
    """
    given = vars(args) if isinstance(args, argparse.Namespace) else args
    values: dict[str, Any] = {}
    for field in _flag_fields(settings):
        name = _flag_of(field).removeprefix("--").replace("-", "_")
        if name not in given:
            continue
        value, unit = given[name], field.metadata.get("unit")
        if unit is not None and value is not None:
            if not math.isfinite(value):
                raise OptionError(f"{_flag_of(field)} is {value}; expected a finite number")
            value = int(value * unit)
        values[field.name] = value
    return settings(**values)


def attributes_of(args: object) -> dict[str, Any]:
    """Return the public attributes of what a script passes for parsed flags: any object, as with upstream."""
    return {name: getattr(args, name) for name in dir(args) if not name.startswith("_")}


def _flag_fields(settings: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(settings) if "flag" in field.metadata]


def _flag_of(field: dataclasses.Field[Any]) -> str:
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


def _plain_type(kind: Any) -> Any:
    """``int`` of ``int | None``; any other type as it is."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind
