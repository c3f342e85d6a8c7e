"""``load_pretrained_model``: what it opens, and what it says of what it cannot."""

import json
import os
import pickle
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, LlamaConfig, LlamaForCausalLM

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model


def load(folder, base=None, **more):
    return load_pretrained_model(str(folder), base and str(base), "any-name", device="cpu", **more)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def split_in_two(folder, kind):
    """The folder's weights as two shards and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, index = ("model", "model.safetensors.index.json")
    if kind == "bin":
        stem, index = ("pytorch_model", "pytorch_model.bin.index.json")
    names = [f"{stem}-0000{n}-of-00002.{kind}" for n in (1, 2)]
    keys = sorted(tensors)
    parts = (keys[: len(keys) // 2], keys[len(keys) // 2 :])
    for name, part in zip(names, parts, strict=True):
        own = {key: tensors[key] for key in part}
        torch.save(own, folder / name) if kind == "bin" else save_file(own, folder / name, {"format": "pt"})
    where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return names


@pytest.fixture
def plain_base(checkpoint, tmp_path):
    """The language model of the tiny LLaVA, alone."""
    model = LlavaLlamaForCausalLM.from_pretrained(checkpoint)
    settings = {key: value for key, value in model.config.to_dict().items() if not key.startswith("mm_")}
    plain = LlamaForCausalLM(LlamaConfig(**{**settings, "model_type": "llama"}))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "mm_projector" not in k})
    plain.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("form", ["safetensors", "two safetensors", "bin", "two bin"])
def test_load_full_checkpoint_answers_as_the_saved_model(checkpoint, model, pixels, form):
    if form == "bin":
        torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
        (checkpoint / "model.safetensors").unlink()
    elif form.startswith("two"):
        split_in_two(checkpoint, form.split()[1])
    tokenizer, found, processor, context = load(checkpoint)
    assert isinstance(found, LlavaLlamaForCausalLM)
    assert isinstance(processor, CLIPImageProcessorPil)
    assert context == model.config.max_position_embeddings == 256
    assert tokenizer("w5").input_ids == [1, 5]
    assert not found.training
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
    with torch.no_grad():
        assert torch.equal(found(ids, images=pixels[:1]).logits, model(ids, images=pixels[:1]).logits)


def test_load_ignores_the_folders_name(checkpoint, tmp_path):
    shutil.move(checkpoint, tmp_path / "lora-mpt-mistral")
    assert isinstance(load(tmp_path / "lora-mpt-mistral")[1], LlavaLlamaForCausalLM)


def test_load_model_type_of_before_1_5_opens_as_llama(checkpoint):
    change_config(checkpoint, model_type="llava")
    assert isinstance(load(checkpoint)[1], LlavaLlamaForCausalLM)


def test_load_with_llava_nexts_keywords(checkpoint):
    """As its examples have them: ``multimodal``, and fields that take the place of the checkpoint's."""
    fields = {"image_aspect_ratio": "pad", "rope_scaling": {"type": "linear", "factor": 2.0}}
    *_, context = load(checkpoint, multimodal=True)
    _, model, _, longer = load(checkpoint, multimodal=True, overwrite_config=fields)
    assert model.config.image_aspect_ratio == "pad" and longer == 2 * context == 512
    with pytest.raises(CheckpointError, match="mm_resampler_type is 'qformer'"):
        load(checkpoint, overwrite_config={"mm_resampler_type": "qformer"})


def test_load_plain_language_model_has_no_image_processor(plain_base):
    _, model, processor, _ = load(plain_base)
    assert type(model) is LlamaForCausalLM
    assert processor is None


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_load_projector_alone_needs_its_base(checkpoint, plain_base, model, pixels, kind):
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "tokenizer.json").unlink()  # the base model's counts
    projector = {key: value for key, value in tensors.items() if "mm_projector" in key}
    path = checkpoint / f"mm_projector.{kind}"
    torch.save(projector, path) if kind == "bin" else save_file(projector, path)
    with pytest.raises(CheckpointError, match="--model-base"):
        load(checkpoint)
    tokenizer, found, processor, _ = load(checkpoint, plain_base)
    assert tokenizer("w5").input_ids == [1, 5]
    assert processor is not None
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
    with torch.no_grad():
        assert torch.equal(found(ids, images=pixels[:1]).logits, model(ids, images=pixels[:1]).logits)


@pytest.mark.parametrize("start_end", [False, True])
def test_load_adds_the_image_tokens_of_the_config(checkpoint, start_end):
    """Upstream's default is to add the patch token."""
    path = checkpoint / "config.json"
    fields = json.loads(path.read_text())
    del fields["mm_use_im_patch_token"]
    path.write_text(json.dumps({**fields, "mm_use_im_start_end": start_end}))
    tokenizer, model, *_ = load(checkpoint)
    added = 3 if start_end else 1
    assert len(tokenizer) == 60 + added
    assert model.get_input_embeddings().num_embeddings == 60 + added
    assert tokenizer.convert_tokens_to_ids("<im_patch>") == 60


def test_load_skips_buffers_of_older_releases(checkpoint):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    change_weights(checkpoint, add)
    load(checkpoint)


def test_load_names_every_tensor_that_does_not_fit(checkpoint):
    def spoil(tensors):
        tensors["model.norm.bias"] = torch.zeros(3)
        tensors["model.mm_projector.0.bias"] = torch.zeros(7)
        del tensors["model.layers.1.self_attn.q_proj.weight"]

    change_weights(checkpoint, spoil)
    with pytest.raises(CheckpointError) as error:
        load(checkpoint)
    for part in (
        str(checkpoint),
        "wrong shape: model.mm_projector.0.bias is (7,), the model needs (32,)",
        "missing: model.layers.1.self_attn.q_proj.weight",
        "left over: model.norm.bias",
    ):
        assert part in str(error.value)


class Opener:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4, "torch"])
def test_load_refuses_pickled_code_without_running_it(checkpoint, tmp_path, protocol):
    evil = {"model.norm.weight": Opener(tmp_path / "ran")}
    path = checkpoint / "pytorch_model.bin"
    (checkpoint / "model.safetensors").unlink()
    torch.save(evil, path) if protocol == "torch" else path.write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(CheckpointError, match="could run code"):
        load(checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_load_of_truncated_weights_names_the_file(checkpoint, name, share):
    path = checkpoint / name
    if name.endswith("bin"):
        torch.save(load_file(checkpoint / "model.safetensors"), path)
        (checkpoint / "model.safetensors").unlink()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=name):
        load(checkpoint)


def test_load_of_an_incomplete_folder_names_what_is_missing(checkpoint, plain_base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="check the path"):
        load(tmp_path / "nowhere")
    (checkpoint / "tokenizer.json").rename(checkpoint / "hidden.json")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load(checkpoint)
    (checkpoint / "hidden.json").rename(checkpoint / "tokenizer.json")
    change_config(checkpoint, hidden_size="wide")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used.*hidden_size"):
        load(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="as JSON"):
        load(checkpoint)
    (plain_base / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load(plain_base)
    (plain_base / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="LoRA"):
        load(plain_base)
    change_config(plain_base, model_type="llava", text_config={})
    with pytest.raises(CheckpointError, match="no usable image processor"):
        load(plain_base)


def test_load_with_a_missing_shard_names_it(checkpoint):
    missing = split_in_two(checkpoint, "safetensors")[1]
    (checkpoint / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        load(checkpoint)


def test_load_options_override_or_are_refused(checkpoint, monkeypatch):
    assert load(checkpoint, dtype=torch.bfloat16)[1].dtype == torch.bfloat16
    assert load(checkpoint, attn_implementation="eager")[1].config._attn_implementation == "eager"
    with pytest.raises(OptionError, match="tpu"):
        load_pretrained_model(str(checkpoint), None, "x", device="tpu")
    for module, options in (("bitsandbytes", {"load_4bit": True}), ("flash_attn", {"use_flash_attn": True})):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(OptionError, match="extra"):
            load(checkpoint, **options)


def test_load_without_tower_weights_reads_the_towers_folder(checkpoint, model):
    change_weights(checkpoint, lambda tensors: [tensors.pop(key) for key in list(tensors) if "vision_tower" in key])
    tower = load(checkpoint)[1].get_vision_tower()
    for key, value in model.get_vision_tower().state_dict().items():
        assert torch.equal(value, tower.state_dict()[key])
    shutil.rmtree(checkpoint / "tower")
    with pytest.raises(CheckpointError, match="vision tower"):
        load(checkpoint)


def test_save_in_half_precision_reads_back_bit_equal(checkpoint, tmp_path):
    """Half precision, saved and read again, is bit for bit the same; a plain folder is all it takes."""
    model = load(checkpoint, dtype=torch.bfloat16)[1]
    model.save_pretrained(tmp_path / "half")
    shutil.rmtree(checkpoint)
    shutil.copy(tmp_path / "half" / "config.json", tmp_path / "config.json")
    again = LlavaLlamaForCausalLM.from_pretrained(tmp_path / "half")
    again.get_vision_tower().load_model()
    assert again.dtype == torch.bfloat16
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key].to(value.dtype)), key
