"""Whole runs of the program on the tiny LLaVA: what they leave after, and that a stopped one goes on exactly."""

import json
import shutil

import pytest
import torch
from fixtures.training import layer_runs
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.train.llava_trainer import LLaVATrainer

PROJECTOR = {f"model.mm_projector.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")}


@pytest.fixture
def stage_one(plain_base, tiny_checkpoint):
    """The flags of LLaVA's first stage."""
    return {
        "data": "captions.json",
        "version": "plain",
        "model_name_or_path": plain_base,
        "vision_tower": tiny_checkpoint / "tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "tune_mm_mlp_adapter": True,
    }


@pytest.fixture
def stop_after(monkeypatch):
    """``with stop_after(n)``: the program is interrupted in its step n + 1."""

    def arrange(steps):
        context = monkeypatch.context()
        patch = context.__enter__()
        original, done = LLaVATrainer.training_step, []

        def step(*args, **kwargs):
            done.append(1)
            if len(done) > steps:
                context.__exit__(None, None, None)
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        patch.setattr(LLaVATrainer, "training_step", step)
        return pytest.raises(KeyboardInterrupt)

    return arrange


def weights(folder):
    return load_file(folder / "model.safetensors")


def history(folder):
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def answer(folder, base=None, **options):
    """Four tokens about a grey image, by the checkpoint as any program opens it; it may have learned to end before."""
    tokenizer, model, processor, _ = load_pretrained_model(str(folder), base and str(base), "any", device="cpu")
    side = processor.crop_size["height"]
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
    with torch.no_grad():
        length = {"max_new_tokens": 4, "min_new_tokens": 4}  # a model of this size may end at once
        found = model.generate(ids, images=torch.full((1, 3, side, side), 0.5), do_sample=False, **length, **options)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, found


def test_stage_two_saves_a_full_model(trained, tiny_checkpoint, tmp_path):
    out = trained(tmp_path / "out", mm_projector_lr=0.05)
    before, after = weights(tiny_checkpoint), weights(out)
    assert after.keys() == before.keys()
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same == {key for key in before if "vision_tower" in key}
    assert not (out / "unfinished").exists()
    config = json.loads((out / "config.json").read_text())
    assert config["use_cache"] is True
    assert config["mm_projector_lr"] == 0.05
    assert config["image_aspect_ratio"] == "pad"
    assert config["conv_mode"] == "vicuna_v1"
    _, found = answer(out)
    assert found.shape == (1, 4)


def test_a_half_precision_result_says_so(trained, tmp_path):
    out = trained(tmp_path / "out", bf16=True)
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.bfloat16}
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_the_loss_falls(trained, tmp_path):
    out = trained(tmp_path / "out", max_steps=15, per_device_train_batch_size=12)
    losses = [line["loss"] for line in history(out) if "loss" in line]
    assert len(losses) == 15
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_compiled_layers_learn_the_same(trained, tmp_path):
    plain, compiled = (
        trained(tmp_path / str(flag), max_steps=3, compile_layers=flag, mm_projector_lr=0.05) for flag in (False, True)
    )
    expected, found = weights(plain), weights(compiled)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[key], found[key], atol=1e-4) for key in expected)


def test_stage_one_leaves_the_projector(trained, stage_one, plain_base, tmp_path):
    out = trained(tmp_path / "out", **stage_one, save_strategy="steps", save_steps=1)
    for folder in (out, out / "checkpoint-1", out / "checkpoint-2"):
        assert torch.load(folder / "mm_projector.bin", weights_only=True).keys() == PROJECTOR
        assert not list(folder.glob("*.safetensors"))
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
    first = torch.load(out / "checkpoint-1" / "mm_projector.bin", weights_only=True)
    last = torch.load(out / "mm_projector.bin", weights_only=True)
    assert all(not torch.equal(first[key], last[key]) for key in PROJECTOR)
    model, found = answer(out, base=plain_base)
    assert found.shape == (1, 4)
    assert all(torch.equal(model.state_dict()[key], last[key]) for key in PROJECTOR)


def test_stage_two_starts_from_the_projector_of_stage_one(trained, stage_one, tmp_path):
    projector = trained(tmp_path / "one", **stage_one) / "mm_projector.bin"
    flags = {**stage_one, "tune_mm_mlp_adapter": False, "version": "v1", "data": "data.json"}
    out = trained(tmp_path / "two", **flags, pretrain_mm_mlp_adapter=projector, learning_rate=0.0)
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "llava_llama"
    assert config["mm_vision_tower"] == "vision_tower", "in the folder itself, wherever that goes"
    saved, found = torch.load(projector, weights_only=True), weights(out)
    assert all(torch.equal(saved[key], found[key]) for key in PROJECTOR)


def test_image_marks_are_saved_with_the_projector(trained, stage_one, plain_base, tmp_path):
    out = trained(tmp_path / "out", **stage_one, mm_use_im_start_end=True)
    saved = torch.load(out / "mm_projector.bin", weights_only=True)
    assert saved.keys() == {*PROJECTOR, "model.embed_tokens.weight"}
    model, _ = answer(out, base=plain_base)
    assert torch.equal(model.get_input_embeddings().weight[-2:], saved["model.embed_tokens.weight"][-2:])


RUNS = {
    "whole": {
        "group_by_modality_length": True,
        "lr_scheduler_type": "cosine",
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2,
    },
    "heads": {"bf16": True, "gradient_checkpointing": True, "scheduler_type": "H", "scheduler_rank": 2},
    "projector": {"tune_mm_mlp_adapter": True},
}


@pytest.mark.parametrize("kind", RUNS)
def test_resumed_run_equals_an_uninterrupted_one(trained, stop_after, tmp_path, kind):
    """Stopped in its second pass over the data, with a checkpoint of an earlier step after it."""
    flags = {**RUNS[kind], "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    straight = trained(tmp_path / "straight", **flags)
    out = tmp_path / "stopped"
    with stop_after(5 * int(flags.get("gradient_accumulation_steps", 1))):
        trained(out, **flags)
    assert not list(out.glob("*.safetensors")) + list(out.glob("*.bin"))
    assert (out / "checkpoint-4").is_dir()
    (out / "checkpoint-5").mkdir()  # as a run leaves it that is killed while it saves
    (out / "checkpoint-5" / "config.json").write_text("{")
    trained(out, **flags)
    if kind == "projector":
        before, after = (torch.load(f / "mm_projector.bin", weights_only=True) for f in (straight, out))
    else:
        before, after = weights(straight), weights(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    figures = [[line["loss"] for line in history(folder) if "loss" in line] for folder in (straight, out)]
    assert figures[0] == figures[1]


def close(first, second):
    """Within what the order of float32 sums may change."""
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-4, atol=1e-5)


def test_a_run_saved_without_its_state_is_not_resumed(trained, tmp_path):
    """Its learning rates would start afresh."""
    flags = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True, "lr_scheduler_type": "linear"}
    out = trained(tmp_path / "out", **flags, max_steps=2)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(CheckpointError, match=r"checkpoint-2 cannot be resumed from.*--save_only_model True"):
        trained(out, **flags, max_steps=4)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_copy_of_a_checkpoint_outlives_the_limit_of_checkpoints_and_a_resumed_run(trained, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    out = trained(tmp_path / "out", **flags, max_steps=2)
    for name in ("checkpoint-best", "checkpoint-1.tmp", "checkpoint-999-old"):
        shutil.copytree(out / "checkpoint-2", out / name)
    trained(out, **flags, max_steps=4)
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 4
    left = sorted(path.name for path in out.glob("checkpoint-*"))
    assert left == ["checkpoint-1.tmp", "checkpoint-4", "checkpoint-999-old", "checkpoint-best"]


def test_accumulated_steps_equal_large_ones(trained, tmp_path):
    """SGD: Adam would blow up the rounding of gradients near 0."""
    flags = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 3}
    large = trained(tmp_path / "large", **flags)
    small = trained(tmp_path / "small", **flags, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    close(weights(large), weights(small))


def test_checkpointing_changes_no_gradient(trained, tmp_path):
    flags = {"scheduler_type": "H", "scheduler_rank": 2, "max_steps": 3, "optim": "sgd", "learning_rate": 0.1}
    with layer_runs() as once:
        kept = weights(trained(tmp_path / "kept", **flags))
    with layer_runs() as twice:
        close(kept, weights(trained(tmp_path / "again", **flags, gradient_checkpointing=True)))
    assert (len(once), len(twice)) == (3 * 2, 2 * 3 * 2), "the layers run again in the backward pass"


def test_sampling_settings_of_the_base_do_not_stop_a_save(trained, checkpoint, tmp_path):
    """Vicuna's files have a temperature, and no do_sample."""
    (checkpoint / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6}))
    out = trained(tmp_path / "out", model_name_or_path=checkpoint, save_strategy="steps", save_steps=1)
    for folder in (out, out / "checkpoint-1"):
        assert json.loads((folder / "generation_config.json").read_text())["temperature"] == 0.9


def test_a_save_that_fails_leaves_nothing_that_looks_finished(trained, monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError("no space left")

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
        trained(out)
    assert not (out / "model.safetensors").exists()
    trained(out)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["vision_tower"]
    answer(out)


def test_anyres(trained, make_checkpoint, tmp_path):
    """LLaVA-1.6's crops in training; ``image_newline`` learns."""
    base = make_checkpoint(mm_patch_merge_type="spatial_unpad")
    flags = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[[16, 32], [32, 16]]", "model_name_or_path": base}
    out = trained(tmp_path / "out", **flags)
    before, after = weights(base), weights(out)
    assert not torch.equal(before["model.image_newline"], after["model.image_newline"])
    config = json.loads((out / "config.json").read_text())
    assert (config["image_aspect_ratio"], config["image_grid_pinpoints"]) == ("anyres", [[16, 32], [32, 16]])
    with pytest.raises(OptionError, match="needs --image_grid_pinpoints"):
        trained(tmp_path / "other", **{**flags, "image_grid_pinpoints": ""})


def test_an_unknown_kind_of_attention(trained, tmp_path):
    with pytest.raises(OptionError, match="attn_implementation is 'flash'; expected eager, sdpa"):
        trained(tmp_path / "out", attn_implementation="flash")
