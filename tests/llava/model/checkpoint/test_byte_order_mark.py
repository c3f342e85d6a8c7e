"""JSON files of a checkpoint that an editor has saved with a byte order mark, or as UTF-16."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal_encoder.builder import build_vision_tower
from tests.fixtures.hub_llavas import write_hub_llava


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


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize("names", [["config.json"], ["preprocessor_config.json"], ["*.json"]], ids=str)
def test_vision_tower_with_byte_order_marks_is_read_as_without(make_checkpoint, names, siglip):
    folder = make_checkpoint(siglip=siglip)
    _, model, processor, _ = opened(folder)
    for path in {path for name in names for path in (folder / "tower").glob(name)}:
        saved_as(path, "utf-8-sig")
    _, marked, read, _ = opened(folder)
    plain, tower = (one.get_vision_tower() for one in (model, marked))
    assert type(tower) is type(plain) and read.to_dict() == processor.to_dict()
    assert tower.config.to_dict() == plain.config.to_dict() and tower.config.name_or_path == str(folder / "tower")
    assert all(torch.equal(a, b) for a, b in zip(tower.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["onevision-9", "next-qwen2", "1.5-siglip"])
def test_checkpoint_in_transformers_layout_with_byte_order_marks_opens_as_without(tmp_path, name):
    write_hub_llava(name, tmp_path)
    _, model, processor, _ = opened(tmp_path)
    for path in tmp_path.glob("*.json"):
        saved_as(path, "utf-8-sig")
    _, marked, read, _ = opened(tmp_path)
    assert read.to_dict() == processor.to_dict()
    assert all(torch.equal(a, b) for a, b in zip(marked.parameters(), model.parameters(), strict=True))


def test_tower_of_its_own_folder_with_byte_order_marks_is_read(tiny_checkpoint, tmp_path):
    settings = SimpleNamespace(mm_vision_tower=str(tmp_path / "tower"), mm_vision_select_layer=-2)
    shutil.copytree(tiny_checkpoint / "tower", tmp_path / "tower")
    plain = build_vision_tower(settings)
    for path in (tmp_path / "tower").glob("*.json"):
        saved_as(path, "utf-8-sig")
    marked = build_vision_tower(settings)
    assert all(torch.equal(a, b) for a, b in zip(marked.parameters(), plain.parameters(), strict=True))
    marked.save_description(tmp_path / "saved")
    saved = (tmp_path / "saved" / "vision_tower" / "config.json").read_text()
    assert json.loads(saved)["hidden_size"] == 24 and "/tmp" not in saved.replace(str(tmp_path), "")


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
