"""The package itself: what can be imported from ``llava`` without naming a module."""

import subprocess
import sys

import pytest

import llava
from llava.model import LlavaLlamaForCausalLM


def test_llamas_class_can_be_imported_from_the_package():
    assert llava.LlavaLlamaForCausalLM is LlavaLlamaForCausalLM and llava.__all__ == ["LlavaLlamaForCausalLM"]


def test_unknown_name_is_an_import_error():
    with pytest.raises(ImportError, match="LlavaLlama"):
        from llava import LlavaLlama  # noqa: F401


def test_package_alone_does_not_import_torch():
    program = "import llava, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
