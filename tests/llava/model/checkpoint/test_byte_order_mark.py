"""JSON files of a checkpoint that an editor has saved with a byte order mark, or as UTF-16."""

import json

import pytest
import torch

from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model
from llava.model.llama_tokenizer import load_tokenizer


def opened(folder, base=None):
    return load_pretrained_model(str(folder), base and str(base), "any", device="cpu")


def saved_as(path, encoding):
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))


@pytest.mark.parametrize(
    "names",
    [["config.json"], ["generation_config.json"], ["tokenizer_config.json", "tokenizer.json"], ["*.json"]],
    ids=str,
)
def test_checkpoint_with_byte_order_marks_opens_as_without(checkpoint, tmp_path, names):
    settings = {"eos_token_id": [2, 7], "max_new_tokens": 5}
    (checkpoint / "generation_config.json").write_text(json.dumps(settings))
    plain, model, *_ = opened(checkpoint)
    for path in {path for name in names for path in checkpoint.glob(name)}:
        saved_as(path, "utf-8-sig")
    tokenizer, marked, *_ = opened(checkpoint)
    assert marked.config.to_dict() == model.config.to_dict()
    assert marked.generation_config.to_dict() == model.generation_config.to_dict()
    assert marked.generation_config.eos_token_id == [2, 7]
    assert all(torch.equal(a, b) for a, b in zip(marked.parameters(), model.parameters(), strict=True))
    assert tokenizer("w5 w6").input_ids == plain("w5 w6").input_ids and tokenizer.name_or_path == str(checkpoint)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved")("w5").input_ids == [1, 5]


def test_config_with_a_byte_order_mark_opens_without_a_generation_config(checkpoint):
    (checkpoint / "generation_config.json").unlink()
    _, model, *_ = opened(checkpoint)
    saved_as(checkpoint / "config.json", "utf-8-sig")
    _, marked, *_ = opened(checkpoint)
    assert marked.generation_config.to_dict() == model.generation_config.to_dict()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_checkpoint_in_another_encoding_is_refused_by_the_files_name(checkpoint, name, encoding):
    saved_as(checkpoint / name, encoding)
    with pytest.raises(CheckpointError, match=rf"{name}.* (is not UTF-8 text|as JSON)"):
        opened(checkpoint)


def test_adapter_with_byte_order_marks_opens_as_without(trained, tiny_checkpoint, tmp_path):
    out = trained(tmp_path / "out", lora_enable=True, lora_r=2, max_steps=1)
    _, model, *_ = opened(out, tiny_checkpoint)
    for path in out.glob("*.json"):
        saved_as(path, "utf-8-sig")
    _, marked, *_ = opened(out, tiny_checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(marked.parameters(), model.parameters(), strict=True))


def test_index_with_a_byte_order_mark_is_refused_by_its_name(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(CheckpointError, match=r"index\.json begins with a byte order mark"):
        opened(checkpoint)


def test_damaged_generation_config_is_refused(checkpoint):
    """transformers passes over it, and answers would end otherwise."""
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": 2')
    with pytest.raises(CheckpointError, match=r"generation_config\.json as JSON"):
        opened(checkpoint)
