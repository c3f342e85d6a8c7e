"""The ten errors that LLaVA's users meet most, in one place: what each is here."""

import json
import shutil
import sys

import pytest
import torch

from llava.errors import CheckpointError, DataError, ImageError, OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model

LORA = {"lora_enable": True, "lora_r": 4}


def opened(folder, base=None, **options):
    return load_pretrained_model(str(folder), base and str(base), "any", device="cpu", **options)


def spoiled(folder, name, **changes):
    """Change fields of a JSON file."""
    path = folder / name
    fields = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**fields, **changes}))


def with_messages(toy_data, tmp_path, *texts):
    """A training file of one conversation with the first image."""
    messages = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "only", "image": "1.png", "conversations": messages}]))
    return path


def test_invalid_generation_config_on_save(trained, checkpoint, tmp_path):
    """Vicuna's files have sampling settings without sampling, which transformers refuses to save."""
    spoiled(checkpoint, "generation_config.json", do_sample=False, temperature=0.9, top_p=0.6)
    out = trained(tmp_path / "out", model_name_or_path=checkpoint, max_steps=1)
    assert json.loads((out / "generation_config.json").read_text())["do_sample"] is True


def test_tokenization_mismatch(trained, toy_data, tmp_path):
    """Upstream prints a warning and trains on nothing."""
    data = with_messages(toy_data, tmp_path, "w5 <image>", "w6", "w7", "w8 </s> w9")
    with pytest.raises(DataError, match=r"record 0 \(id 'only'\): message 4 holds '</s>'"):
        trained(tmp_path / "out", data_path=data)
    with pytest.raises(DataError, match="turn 3 does not split into one question and one answer"):
        trained(tmp_path / "out", data_path=data, check_data=False, max_steps=1)


def test_image_index_out_of_range(tiny_checkpoint):
    _, model, _, _ = opened(tiny_checkpoint)
    with pytest.raises(ImageError, match=r"2 image tag\(s\) in the prompt, but 1 image\(s\) given"):
        model(torch.tensor([[1, -200, 5, -200]]), images=torch.zeros(1, 3, 16, 16))


def test_missing_projector(trained, tmp_path, plain_base, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"mm_projector\.bin"):
        opened(checkpoint, plain_base)
    flags = {"pretrain_mm_mlp_adapter": tmp_path / "mm_projector.bin", "vision_tower": checkpoint / "tower"}
    with pytest.raises(CheckpointError, match=r"mm_projector\.bin"):
        trained(tmp_path / "out", model_name_or_path=plain_base, mm_projector_type="mlp2x_gelu", **flags)


@pytest.mark.parametrize("name", ["my-model", "mpt-7b-lora", "vicuna"])
def test_the_folders_name_says_nothing(tiny_checkpoint, tmp_path, name):
    """Upstream takes a folder without 'llava' in its name for a plain language model."""
    _, model, processor, _ = opened(shutil.copytree(tiny_checkpoint, tmp_path / name))
    assert type(model) is LlavaLlamaForCausalLM and processor is not None


def test_lora_without_base_and_resumed_without_its_flag(trained, tmp_path):
    out = trained(tmp_path / "out", **LORA, max_steps=1, save_strategy="steps", save_steps=1)
    spoiled(out, "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="holds a LoRA adapter; name the model that it was trained on"):
        opened(out)
    with pytest.raises(CheckpointError, match=r"another run, with .*--lora_enable True \(now False\)"):
        trained(out)
    trained(out, **LORA, max_steps=2, save_strategy="steps", save_steps=1)  # resumed as it was started
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 2


def test_flash_attention_that_is_not_installed(trained, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(OptionError, match=r"pip install 'ada-llava\[flash\]'"):
        opened(tiny_checkpoint, attn_implementation="flash_attention_2")
    with pytest.raises(OptionError, match=r"pip install 'ada-llava\[flash\]'"):
        trained(tmp_path / "out", attn_implementation="flash_attention_2")


def test_a_tokenizer_without_padding_token(trained, checkpoint, tmp_path):
    spoiled(checkpoint, "tokenizer_config.json", pad_token=None)
    trained(tmp_path / "unknown", model_name_or_path=checkpoint, max_steps=1)  # <unk> stands in
    spoiled(checkpoint, "tokenizer_config.json", pad_token=None, unk_token=None)
    with pytest.raises(CheckpointError, match="neither a padding nor an unknown token"):
        trained(tmp_path / "none", model_name_or_path=checkpoint, max_steps=1)


def test_an_image_tag_inside_an_answer(trained, toy_data, tmp_path):
    data = with_messages(toy_data, tmp_path, "w5 <image>", "w6 <image>")
    with pytest.raises(DataError, match=r"message 2 is an answer that holds <image>"):
        trained(tmp_path / "out", data_path=data)
