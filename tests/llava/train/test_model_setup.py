"""From flags to a model that is ready to train; what cannot be one."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError, OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.train.model_setup import (
    add_vision,
    compile_layers,
    make_model,
    make_tokenizer,
    set_trainable_parameters,
)
from llava.train.train import parse_arguments


@pytest.fixture
def arguments(flags_of, tmp_path):
    return lambda **flags: parse_arguments(flags_of(tmp_path / "out", **flags))


@pytest.fixture
def set_up(arguments):
    """``set_up(**flags)``: the model and tokenizer as the program makes them."""

    def make(**flags):
        options = arguments(**flags)
        model = make_model(options)
        tokenizer = make_tokenizer(model, options)
        add_vision(model, tokenizer, options)
        set_trainable_parameters(model, options)
        return model, tokenizer

    return make


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_are_the_checkpoints(set_up, checkpoint):
    model, _ = set_up(model_name_or_path=checkpoint)
    assert type(model) is LlavaLlamaForCausalLM
    assert model.dtype == torch.float32
    saved = load_file(checkpoint / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def test_stage_two_learns_all_but_the_tower(set_up):
    model, _ = set_up()
    names = {name for name, _ in model.named_parameters()}
    assert learning(model) == {name for name in names if "vision_tower" not in name}
    assert any("vision_tower" in name for name in names)


def test_stage_one_learns_the_projector(set_up, plain_base, tiny_checkpoint):
    tower = tiny_checkpoint / "tower"
    model, _ = set_up(
        model_name_or_path=plain_base, vision_tower=tower, tune_mm_mlp_adapter=True, mm_projector_type="mlp2x_gelu"
    )
    layers = [f"model.mm_projector.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")]
    assert learning(model) == set(layers)


def test_other_freezes(set_up):
    model, _ = set_up(freeze_mm_mlp_adapter=True)
    assert learning(model)
    assert not any("mm_projector" in name for name in learning(model))
    model, _ = set_up(freeze_backbone=True)
    assert {name for name in learning(model) if "mm_projector" not in name} == {"lm_head.weight"}


def test_a_llavas_own_settings_hold(set_up, checkpoint):
    change_config(checkpoint, mm_vision_select_feature="cls_patch")
    model, _ = set_up(model_name_or_path=checkpoint)
    assert model.get_vision_tower().select_layer == model.config.mm_vision_select_layer == -2
    assert model.get_vision_tower().select_feature == "cls_patch"
    model, _ = set_up(model_name_or_path=checkpoint, mm_vision_select_layer=-3)
    assert model.get_vision_tower().select_layer == model.config.mm_vision_select_layer == -3


def test_the_decoders_layers_alone_are_compiled(set_up):
    model, _ = set_up()
    compile_layers(model)
    compiled = {name for name, module in model.named_modules() if module._compiled_call_impl is not None}
    assert compiled == {f"model.layers.{index}" for index in range(model.config.num_hidden_layers)}


def test_image_marks_are_trained_in_stage_one(set_up):
    model, tokenizer = set_up(mm_use_im_start_end=True, tune_mm_mlp_adapter=True)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == 62
    assert {name for name in learning(model) if "mm_projector" not in name} == {"model.embed_tokens.weight"}


def test_padding_token(set_up, checkpoint):
    settings = checkpoint / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": None}))
    _, tokenizer = set_up(model_name_or_path=checkpoint)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<unk>", 0)
    assert (tokenizer.padding_side, tokenizer.model_max_length) == ("right", 64)
    model, tokenizer = set_up(model_name_or_path=checkpoint, version="v0")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 60)
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert table.shape[0] == 61
        assert torch.allclose(table[60], table[:60].mean(dim=0))


def test_no_padding_token_at_all(set_up, checkpoint):
    settings = checkpoint / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": None, "unk_token": None}))
    with pytest.raises(CheckpointError, match="neither a padding nor an unknown token"):
        set_up(model_name_or_path=checkpoint)


def drop_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["model.mm_projector.0.bias"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :5].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def pickled_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Code()}))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: shutil.rmtree(folder), "neither a folder nor a model"),
        (lambda folder: (folder / "config.json").unlink(), r"cannot read .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"cannot read .*config.json"),
        (lambda folder: change_config(folder, model_type="gpt2"), "model_type 'gpt2'; expected one of .*llava_llama"),
        (lambda folder: change_config(folder, model_type="llava", text_config={}), "no usable image processor"),
        (lambda folder: change_config(folder, hidden_size="wide"), r"config.json cannot be used"),
        (drop_tensor, r"missing: model.layers.1.mlp.up_proj.weight, model.mm_projector.0.bias"),
        (cut_tensor, r"wrong shape: lm_head.weight is \(60, 5\)"),
        (cut_file, "cut short or damaged"),
        (pickled_code, "was refused"),
    ],
)
def test_bad_checkpoints(arguments, checkpoint, monkeypatch, capsys, spoil, complaint):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=complaint):
        make_model(arguments(model_name_or_path=checkpoint))
    assert "this ran" not in capsys.readouterr().out


def test_a_projector_from_its_own_file(arguments, checkpoint, tmp_path):
    """Where one is given, the checkpoint need not have it; other tensors it must."""
    drop_tensor(checkpoint)
    with pytest.raises(CheckpointError, match=r"missing: model.layers.1.mlp.up_proj.weight\."):
        make_model(arguments(model_name_or_path=checkpoint, pretrain_mm_mlp_adapter=tmp_path / "mm_projector.bin"))


def test_flags_that_are_missing(arguments):
    with pytest.raises(OptionError, match="--model_name_or_path is missing"):
        make_model(arguments(model_name_or_path=""))


def test_tuning_a_projector_that_is_not_there(set_up, plain_base):
    with pytest.raises(OptionError, match="--tune_mm_mlp_adapter True needs --vision_tower"):
        set_up(model_name_or_path=plain_base, tune_mm_mlp_adapter=True)


def test_flash_attention_that_is_not_installed(arguments):
    with pytest.raises(OptionError, match="extra 'flash'"):
        make_model(arguments(attn_implementation="flash_attention_2"))
