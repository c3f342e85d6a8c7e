"""The plug-in manager: finds the modules that extend the shell, by entry points of the group ``llava``."""

from __future__ import annotations

import functools

import pluggy

from llava import hookspecs


@functools.cache
def plugin_manager() -> pluggy.PluginManager:
    """The process's plug-in manager, with every installed plug-in registered.

    A plug-in that fails to import stops the program with its own name in the message: running on without it
    would silently ignore the flags it adds.
    """
    manager = pluggy.PluginManager("llava")
    manager.add_hookspecs(hookspecs)
    try:
        manager.load_setuptools_entrypoints("llava")
    except ImportError as error:
        raise ImportError(f"a plug-in of the entry-point group 'llava' failed to import: {error}") from error
    return manager


def hooks() -> pluggy.HookRelay:
    """The hooks of all plug-ins, to call by name: ``hooks().add_arguments(parser=..., program=...)``."""
    return plugin_manager().hook


def merged(results: list) -> dict:
    """One dict of what several plug-ins returned; the same key from two plug-ins is a programming error."""
    out: dict = {}
    for part in results:
        for key, value in (part or {}).items():
            if key in out:
                raise ValueError(f"two plug-ins define {key!r}")
            out[key] = value
    return out
