"""``import ada``: the public names, loaded lazily."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import ada


def test_public_names_are_those_of_their_modules() -> None:
    assert set(ada.__all__) == set(ada._MODULES) == set(dir(ada))
    for name, module in ada._MODULES.items():
        assert getattr(ada, name) is getattr(importlib.import_module(module), name)


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ada' has no attribute 'Nothing'"):
        ada.Nothing  # noqa: B018


def test_import_loads_no_torch(root) -> None:
    code = "import sys, ada; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, env={"PYTHONPATH": str(root)}).returncode == 0
