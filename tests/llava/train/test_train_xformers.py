"""The program that launch lines for xformers name: it says what to use, and trains with PyTorch's attention."""

import runpy
import sys

import pytest

from llava.train import train as program
from llava.train.arguments import ModelArguments


@pytest.mark.parametrize(("flags", "attention"), [({}, "sdpa"), ({"attn_implementation": "eager"}, "eager")])
def test_program_trains_with_pytorchs_attention(flags_of, tmp_path, monkeypatch, caplog, flags, attention):
    used, make_trainer = [], program.make_trainer

    def recorded(arguments):
        used.append(arguments[ModelArguments].attn_implementation)
        return make_trainer(arguments)

    monkeypatch.setattr(program, "make_trainer", recorded)
    monkeypatch.setattr(sys, "argv", ["train_xformers.py", *flags_of(tmp_path / "out", max_steps=1, **flags)])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("llava.train.train_xformers", run_name="__main__")
    assert (end.value.code, used) == (0, [attention])
    assert "--attn_implementation sdpa; start llava/train/train.py" in caplog.text
    assert (tmp_path / "out" / "model.safetensors").is_file()
