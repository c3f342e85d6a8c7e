"""The bundle: what was trained answers the same from it, on the language model of this user's cache."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from fixtures.training import LORA, SCHEDULER, answer, opened

from llava.model.checkpoint.model_cache import cached_model
from playground.smol import bundle
from playground.smol.base import NAME


@pytest.fixture
def trained_smol(trained, plain_base, tiny_checkpoint, root, tmp_path, monkeypatch):
    """A folder as PRESET=smol writes it: a tower, adapters of a language model, and adapters of kind H on all that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached_model(NAME).parent.mkdir(parents=True)
    shutil.copytree(plain_base, cached_model(NAME))
    smol = tmp_path / "smol"
    shutil.copytree(tiny_checkpoint / "tower", smol / "tower")
    fields = json.loads((tiny_checkpoint / "config.json").read_text())
    eyes = {"vision_tower": smol / "tower", "mm_projector_type": fields["mm_projector_type"]}
    trained(smol / "llava-lora", **LORA, **eyes, model_name_or_path=plain_base)
    flags = ["--model-path", smol / "llava-lora", "--model-base", plain_base, "--save-model-path", smol / "llava"]
    monkeypatch.setattr(sys, "argv", ["merge", *map(str, flags)])
    runpy.run_path(str(root / "scripts" / "merge_lora_weights.py"))["main"]()
    trained(smol / "H", **LORA, **SCHEDULER, model_name_or_path=smol / "llava")
    return smol


@pytest.fixture
def bundled(monkeypatch):
    """``bundled(smol, out)`` runs the program; its exit code."""

    def run(smol, out):
        monkeypatch.setattr(sys, "argv", ["bundle", "--smol", str(smol), "--out", str(out)])
        return bundle.main()

    return run


def test_what_was_trained_answers_the_same_from_the_bundle(trained_smol, bundled, plain_base, tmp_path, capsys):
    assert bundled(trained_smol, tmp_path / "first") == 0
    parts = [line.split(": ") for line in capsys.readouterr().out.splitlines()]
    assert [Path(path).name for path, _ in parts] == ["smol", "smol-H"]
    moved = shutil.move(tmp_path / "first", tmp_path / "moved")
    for path, size in parts:
        files = [file for file in (moved / Path(path).name).rglob("*") if file.is_file()]
        assert size == f"{sum(file.stat().st_size for file in files):,} bytes"
    for name, source, base in (("smol", "llava-lora", plain_base), ("smol-H", "H", trained_smol / "llava")):
        budget = {"latency_budget": 0.75} if name == "smol-H" else {}
        (first, processor), (again, _) = opened(trained_smol / source, base), opened(moved / name)
        expected, found = (answer(model, processor, **budget).logits.float() for model in (first, again))
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
        assert found.std() > 0.2, "bfloat16 alone lies between the two"


def test_a_bundle_that_is_too_large_or_has_no_llava_is_refused(trained_smol, bundled, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "MAX_BYTES", 1000)
    assert bundled(trained_smol, tmp_path / "out") == 2
    assert re.search(r"the bundle has [\d,]+ bytes; expected 1,000 at most", capsys.readouterr().err)
    shutil.rmtree(trained_smol / "llava-lora")
    assert bundled(trained_smol, tmp_path / "other") == 2
    assert "llava-lora holds no adapter; train it: PRESET=smol" in capsys.readouterr().err
