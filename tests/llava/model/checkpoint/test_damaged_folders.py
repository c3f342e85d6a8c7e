"""What is wrong with a checkpoint's folder, or with the path for a new one, is an error, and nothing is written."""

import json
import runpy
import shutil
import sys

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model
from llava.model.consolidate import consolidate_ckpt
from llava.model.convert import convert
from llava.model.convert import main as convert_main
from llava.model.make_delta import make_delta

TOWER = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
ANYRES = {
    "image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": [[16, 32]],
}  # fmt: skip


def change_tensors(folder, changes, file="model.safetensors"):
    """None takes a tensor out."""
    tensors = {**load_file(folder / file), **changes}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / file, metadata={"format": "pt"})


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def opened(folder, base=None):
    return load_pretrained_model(str(folder), base and str(base), "any", device="cpu")


@pytest.fixture
def hub(checkpoint, tmp_path):
    convert(str(checkpoint), tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def adapter(tiny_checkpoint, tmp_path):
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    shutil.copy(tiny_checkpoint / "config.json", tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "nope"},
        {"num_attention_heads": 0},
        {"dtype": "float99"},
        {"vocab_size": "60"},
        {"mm_hidden_size": "a"},
    ],
    ids=str,
)
def test_unusable_config_value_raises_everywhere(checkpoint, tmp_path, changes):
    change_json(checkpoint / "config.json", **changes)
    for work in (
        lambda: convert(str(checkpoint), tmp_path / "new"),
        lambda: consolidate_ckpt(str(checkpoint), str(tmp_path / "new")),
        lambda: opened(checkpoint),
    ):
        with pytest.raises(CheckpointError, match=r"config.json cannot be used"):
            work()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("layer", [99, "x", [-2]], ids=str)
def test_convert_with_a_missing_tower_layer_raises(checkpoint, tmp_path, layer):
    change_json(checkpoint / "config.json", mm_vision_select_layer=layer)
    with pytest.raises(CheckpointError, match="mm_vision_select_layer is"):
        convert(str(checkpoint), tmp_path / "new")


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_config_that_is_no_object_raises(checkpoint, tmp_path, text):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        convert(str(checkpoint), tmp_path / "new")


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1, "b": "x"}}'])
def test_index_without_a_weight_map_raises(checkpoint, tmp_path, text):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="no weight_map"):
        convert(str(checkpoint), tmp_path / "new")


@pytest.mark.parametrize("points", [None, [[1, 2, 3]], 5, "abc"], ids=str)
def test_convert_with_unusable_grid_pinpoints_raises(make_checkpoint, tmp_path, points):
    folder = make_checkpoint(**ANYRES)
    change_json(folder / "config.json", image_grid_pinpoints=points)
    with pytest.raises(CheckpointError, match="image_grid_pinpoints is"):
        convert(str(folder), tmp_path / "new")


@pytest.mark.parametrize("layout", ["llava", "hub"])
def test_convert_without_a_tokenizer_raises(checkpoint, hub, tmp_path, layout):
    shutil.rmtree(hub / "llava")
    folder = {"llava": checkpoint, "hub": hub}[layout]
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        convert(str(folder), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("tensor", "message"), [(None, "missing: .*pre_layrnorm"), (torch.ones(3), r"pre_layrnorm.weight is \(3,\)")]
)
def test_incomplete_tower_raises(checkpoint, hub, tmp_path, tensor, message):
    """In LLaVA's layout, in transformers', and in a separate folder, where transformers would make up the rest."""
    apart = shutil.copytree(checkpoint, tmp_path / "apart")
    change_tensors(checkpoint, {TOWER: tensor})
    change_tensors(hub, {"vision_tower.vision_model.pre_layrnorm.weight": tensor})
    change_tensors(apart, {name: None for name in load_file(apart / "model.safetensors") if "vision_tower" in name})
    names = [name for name in load_file(apart / "tower" / "model.safetensors") if "pre_layrnorm.weight" in name]
    change_tensors(apart / "tower", {names[0]: tensor})
    for folder in (checkpoint, hub, apart):
        with pytest.raises(CheckpointError, match=message):
            convert(str(folder), tmp_path / "new")
    with pytest.raises(CheckpointError, match=message):
        opened(apart)
    assert not (tmp_path / "new").exists()


def test_convert_a_vocabulary_that_grew_raises_or_keeps_it(hub, tmp_path):
    table = torch.randn(70, 32)
    change_tensors(hub, {f"language_model.{name}.weight": table.clone() for name in ("model.embed_tokens", "lm_head")})
    fields = json.loads((hub / "config.json").read_text())
    change_json(hub / "config.json", text_config={**fields["text_config"], "vocab_size": 70})
    with pytest.raises(CheckpointError, match="70 tokens; it had 61"):
        convert(str(hub), tmp_path / "new")
    shutil.rmtree(hub / "llava")
    convert(str(hub), tmp_path / "new")
    assert torch.equal(load_file(tmp_path / "new" / "model.safetensors")["lm_head.weight"], table)


def test_convert_one_tensor_under_two_names_raises(hub, tmp_path):
    change_tensors(hub, {"model.language_model.norm.weight": torch.zeros(32)})
    with pytest.raises(CheckpointError, match="twice"):
        convert(str(hub), tmp_path / "new")


def test_consolidate_writes_tensors_that_share_memory(checkpoint, tmp_path):
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    consolidate_ckpt(str(checkpoint), str(tmp_path / "new"))
    after = load_file(tmp_path / "new" / "model.safetensors")
    assert set(after) == set(tensors) and all(torch.equal(after[name], tensors[name]) for name in tensors)


def test_delta_and_consolidate_of_hub_layout_name_convert(checkpoint, hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"llava.model.convert"):
        make_delta(str(checkpoint), str(hub), str(tmp_path / "new"))
    with pytest.raises(CheckpointError, match=r"llava.model.convert"):
        consolidate_ckpt(str(hub), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("newline", "message"), [(None, "no image_newline"), (torch.zeros(1), r"is \(1,\), the model needs \(32,\)")]
)
def test_load_projector_file_with_unusable_newline_raises(root, make_checkpoint, tmp_path, newline, message):
    """It stayed random, or was spread from one value."""
    full = make_checkpoint(**ANYRES)
    folder = shutil.copytree(full, tmp_path / "projector")
    (folder / "model.safetensors").unlink()
    extract = runpy.run_path(str(root / "scripts" / "extract_mm_projector.py"))["extract"]
    extract(str(full), folder / "mm_projector.bin")
    opened(folder, full)
    tensors = {k: v for k, v in torch.load(folder / "mm_projector.bin").items() if not k.endswith("newline")}
    if newline is not None:
        tensors["model.image_newline"] = newline
    torch.save(tensors, folder / "mm_projector.bin")
    with pytest.raises(CheckpointError, match=message):
        opened(folder, full)


def test_load_incomplete_adapter_raises(adapter, tiny_checkpoint):
    """The library warns, and leaves such a layer as it was."""
    opened(adapter, tiny_checkpoint)
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"
    file = "adapter_model.safetensors"
    kept = load_file(adapter / file)[name.format(1)]
    change_tensors(adapter, {name.format(1): None}, file)
    with pytest.raises(CheckpointError, match=r"lacks .*layers.1.self_attn.q_proj"):
        opened(adapter, tiny_checkpoint)
    change_tensors(adapter, {name.format(1): kept, name.format(9): kept.clone()}, file)
    with pytest.raises(CheckpointError, match=r"does not place .*layers.9"):
        opened(adapter, tiny_checkpoint)
    (adapter / file).write_bytes((adapter / file).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cut short"):
        opened(adapter, tiny_checkpoint)


@pytest.mark.parametrize("path", ["file/new", "x" * 300])
def test_convert_to_an_unwritable_path_exits_with_2(checkpoint, tmp_path, monkeypatch, capsys, path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["convert", str(checkpoint), str(tmp_path / path)])
    with pytest.raises(SystemExit) as stop:
        convert_main()
    assert stop.value.code == 2 and "name a path that can be written" in capsys.readouterr().err


def test_convert_replaces_what_a_stopped_run_left(checkpoint, tmp_path):
    (tmp_path / "new" / "unfinished").mkdir(parents=True)
    (tmp_path / "new" / "unfinished" / "model.safetensors").write_text("half")
    convert(str(checkpoint), tmp_path / "new")
    assert not (tmp_path / "new" / "unfinished").exists()
    assert load_file(tmp_path / "new" / "model.safetensors")
