"""Finds the plug-ins that extend the shell, by entry points of the group ``llava``, and calls their hooks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from llava import hookspecs


@functools.cache
def plugin_manager() -> pluggy.PluginManager:
    """Return the process's plug-in manager, with every installed plug-in registered.

    Raises ImportError, with the plug-in's name, where one fails to import: running on without it would silently ignore
    the flags that it adds.
    """
    manager = pluggy.PluginManager("llava")
    manager.add_hookspecs(hookspecs)
    try:
        manager.load_setuptools_entrypoints("llava")
    except ImportError as error:
        raise ImportError(f"a plug-in of the entry-point group 'llava' failed to import: {error}") from error
    return manager


def hooks() -> pluggy.HookRelay:
    """Return the hooks of all plug-ins, to call by name: ``hooks().add_arguments(parser=..., program=...)``."""
    return plugin_manager().hook


def merged(results: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Merge what several plug-ins returned into one dict. Raises ValueError for a key from two plug-ins."""
    out: dict[str, Any] = {}
    for part in results:
        for key, value in (part or {}).items():
            if key in out:
                raise ValueError(f"two plug-ins define {key!r}")
            out[key] = value
    return out
