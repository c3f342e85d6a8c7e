"""``--image_token_dropout`` without a scheduler: what a run leaves is a plain LLaVA, however it was trained."""

import json

import pytest
import torch
from fixtures.marks import slow_except
from fixtures.training import LORA, layer_runs
from safetensors.torch import load_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model import LlavaLlamaForCausalLM, LlavaMistralForCausalLM, LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model
from llava.train.train import make_trainer, parse_arguments

pytestmark = pytest.mark.integration  # they train

DIAL = {"image_token_dropout": 0.25, "token_selector": "grid"}


def fields(folder):
    return json.loads((folder / "config.json").read_text())


def losses(folder):
    return [
        line["loss"]
        for line in json.loads((folder / "trainer_state.json").read_text())["log_history"]
        if "loss" in line
    ]


@pytest.mark.parametrize("kind", [LlavaLlamaForCausalLM, LlavaMistralForCausalLM, LlavaQwenForCausalLM])
def test_checkpoint_is_a_plain_one_with_two_more_keys(trained, make_checkpoint, tmp_path, kind):
    base = make_checkpoint(kind, num_key_value_heads=2)
    plain = trained(tmp_path / "plain", model_name_or_path=base)
    dial = trained(tmp_path / "dial", model_name_or_path=base, **DIAL)
    assert fields(dial) == {**fields(plain), **DIAL}
    assert fields(dial)["architectures"] == [kind.__name__]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (dial, plain))
    assert ours.keys() == theirs.keys()
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours), "it has learned from other tokens"
    assert losses(dial) != losses(plain)
    _, model, processor, _ = load_pretrained_model(str(dial), None, "any", device="cpu")
    assert type(model) is kind
    side = processor.crop_size["height"]
    prompt = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
    answer = model.generate(prompt, images=torch.full((1, 3, side, side), 0.5), max_new_tokens=3, min_new_tokens=3)
    assert answer.shape == (1, 3)


@pytest.mark.parametrize("more", slow_except([{}, LORA], {}), ids=["full", "lora"])
def test_training_does_not_depend_on_how_a_step_is_cut(trained, tmp_path, more):
    """One batch of four, or four of one: the same losses. SGD, as Adam blows up rounding."""
    flags = {**DIAL, **more, "max_steps": 3, "optim": "sgd", "learning_rate": 0.1, "distillation_weight": 0.5}
    curves = []
    for batch, passes in ((4, 1), (2, 2), (1, 4)):
        out = trained(
            tmp_path / str(batch), per_device_train_batch_size=batch, gradient_accumulation_steps=passes, **flags
        )
        curves.append(losses(out))
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=2e-4)


@pytest.mark.parametrize(
    "more",
    slow_except([{}, LORA, {"scheduler_type": "L"}], {"scheduler_type": "L"}),
    ids=["full", "lora", "scheduler"],
)
def test_resumed_run_equals_an_uninterrupted_one(trained, tmp_path, more):
    flags = {**DIAL, **more, "save_strategy": "steps", "save_steps": 1}
    through = trained(tmp_path / "through", **flags, max_steps=2)
    trained(tmp_path / "stopped", **flags, max_steps=1)
    resumed = trained(tmp_path / "stopped", **flags, max_steps=2)
    name = "adapter_model.safetensors" if more is LORA else "model.safetensors"
    ours, expected = load_file(resumed / name), load_file(through / name)
    assert ours.keys() == expected.keys() and all(torch.equal(ours[key], expected[key]) for key in ours)


def test_adapters_learn_in_bfloat16_with_checkpointing(trained, tiny_checkpoint, tmp_path):
    out = trained(tmp_path / "out", **DIAL, **LORA, bf16=True, gradient_checkpointing=True)
    saved = load_file(out / "adapter_model.safetensors")
    assert all(key.startswith("base_model.model.model.layers.") for key in saved)
    assert all(tensor.abs().sum() > 0 for tensor in saved.values()), "each has had a gradient"
    config = fields(out)
    assert (config["model_type"], config["image_token_dropout"], config["token_selector"]) == (
        "llava_llama",
        0.25,
        "grid",
    )
    _, model, _, _ = load_pretrained_model(str(out), str(tiny_checkpoint), "any", device="cpu")
    assert type(model) is LlavaLlamaForCausalLM and model.config.image_token_dropout == 0.25


def test_checkpointing_changes_nothing(trained, tmp_path):
    flags = {**DIAL, "optim": "sgd", "learning_rate": 0.1}
    with layer_runs() as once:
        plain = trained(tmp_path / "plain", **flags)
    with layer_runs() as twice:
        checkpointed = trained(tmp_path / "checkpointed", **flags, gradient_checkpointing=True)
    assert len(twice) == 2 * len(once) > 0, "the layers run again in the backward pass"
    assert losses(checkpointed) == pytest.approx(losses(plain), abs=2e-4)


def test_projector_alone_learns_where_the_rest_is_frozen(trained, tiny_checkpoint, plain_base, tmp_path):
    before = load_file(tiny_checkpoint / "model.safetensors")
    out = trained(tmp_path / "frozen", **DIAL, freeze_backbone=True)
    after = load_file(out / "model.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key.rpartition(".")[0] for key in changed} >= {"model.mm_projector.0", "model.mm_projector.2"}
    assert not any(key.startswith(("model.layers", "model.embed_tokens", "model.vision_tower")) for key in changed)
    stage_1 = {"version": "plain", "tune_mm_mlp_adapter": True, "vision_tower": tiny_checkpoint / "tower"}
    out = trained(
        tmp_path / "stage-1",
        "captions.json",
        model_name_or_path=plain_base,
        **DIAL,
        **stage_1,
        mm_projector_type="linear",
    )
    assert set(torch.load(out / "mm_projector.bin", weights_only=True)) == {
        "model.mm_projector.weight",
        "model.mm_projector.bias",
    }
    assert fields(out)["image_token_dropout"] == 0.25 and fields(out)["model_type"] == "llava_llama"


def test_forward_is_given_what_the_policy_draws(flags_of, tmp_path):
    trainer = make_trainer(parse_arguments(flags_of(tmp_path / "out", **DIAL)))
    seen, forward = [], trainer.model.forward

    def watched(*args, **kwargs):
        seen.append((kwargs["image_tokens"], kwargs["token_selector"]))
        return forward(*args, **kwargs)

    trainer.model.forward = watched
    trainer.train()
    drawn = [trainer.policy.inputs(trainer.args.seed, step, 0.0, 0, 4) for step in (0, 1)]
    assert seen == [(step["image_tokens"], "grid") for step in drawn]
