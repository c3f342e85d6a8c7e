"""``--token_scorer_layer``: a run trains the scorer alone, and what it ranks first is what answers attend to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ada.image_tokens.answer_attention import AnswerAttention
from ada.image_tokens.selectors import Candidates, select_random, select_salient
from ada.train.budget_training import BudgetTraining
from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.train.train import make_trainer, parse_arguments, train
from playground.shapes.generate import generate

pytestmark = pytest.mark.integration  # they train

SCORER = {"token_scorer_layer": "P"}
KEEP = 1  # of the shapes world's 36 image tokens


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in history if "loss" in line]


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("more", [{}, {"bf16": True, "gradient_checkpointing": True}], ids=["float32", "bfloat16"])
def test_scorer_alone_learns(trained, make_adaptive_checkpoint, tmp_path, kind, more) -> None:
    base = make_adaptive_checkpoint(kind)
    out = trained(tmp_path / "out", model_name_or_path=base, **SCORER, **more)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    added = after.keys() - before.keys()
    assert {key.rpartition(".")[0] for key in added} == {
        f"token_scorer.{part}" for part in ("image_proj", "latency_proj", "content")
    }
    assert all(torch.equal(after[key], before[key].to(after[key].dtype)) for key in before), "nothing else has changed"
    config = json.loads((out / "config.json").read_text())
    assert config["token_scorer_layer"] == config["num_prefix_layers"] == 2
    _, model, _, _ = load_pretrained_model(str(out), None, "any", device="cpu")  # raises on any misfit
    assert torch.equal(model.token_scorer.content.weight, after["token_scorer.content.weight"].float())
    assert after["token_scorer.image_proj.bias"].abs().sum() > 0, "it starts at 0"


def test_training_goes_on_from_a_scorer_at_its_layer(trained, adaptive_checkpoint, tmp_path) -> None:
    first = trained(tmp_path / "first", model_name_or_path=adaptive_checkpoint, token_scorer_layer=3)
    again = trained(tmp_path / "again", model_name_or_path=first, token_scorer_layer=3, learning_rate=0.0)
    ours, expected = load_file(again / "model.safetensors"), load_file(first / "model.safetensors")
    assert ours.keys() == expected.keys() and all(torch.equal(ours[key], expected[key]) for key in ours)
    assert json.loads((again / "config.json").read_text())["token_scorer_layer"] == 3


def test_training_does_not_depend_on_how_a_step_is_cut(trained, adaptive_checkpoint, tmp_path) -> None:
    """One batch of four, or four of one: the same losses. SGD, as Adam blows up rounding."""
    flags = {"model_name_or_path": adaptive_checkpoint, **SCORER, "max_steps": 3, "optim": "sgd", "learning_rate": 1.0}
    curves = []
    for batch, passes in ((4, 1), (2, 2), (1, 4)):
        out = trained(
            tmp_path / str(batch), per_device_train_batch_size=batch, gradient_accumulation_steps=passes, **flags
        )
        curves.append(losses(out))
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=2e-4)


def test_resumed_run_equals_an_uninterrupted_one(trained, adaptive_checkpoint, tmp_path) -> None:
    flags = {"model_name_or_path": adaptive_checkpoint, **SCORER, "save_strategy": "steps", "save_steps": 1}
    through = trained(tmp_path / "through", **flags, max_steps=2)
    trained(tmp_path / "stopped", **flags, max_steps=1)
    resumed = trained(tmp_path / "stopped", **flags, max_steps=2)
    ours, expected = (load_file(folder / "model.safetensors") for folder in (resumed, through))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_later_training_of_the_model_leaves_its_scorer_as_it_is(trained, adaptive_checkpoint, tmp_path, caplog) -> None:
    scored = trained(tmp_path / "scored", model_name_or_path=adaptive_checkpoint, **SCORER)
    out = trained(tmp_path / "out", model_name_or_path=scored)
    before, after = (load_file(folder / "model.safetensors") for folder in (scored, out))
    assert all(torch.equal(before[key], after[key]) == ("scorer" in key or "tower" in key) for key in before)
    assert "the model's token scorer stays as it is; train it anew" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"token_scorer_layer": "first"}, "--token_scorer_layer is 'first'; expected a layer's number, or P"),
        ({"token_scorer_layer": 0}, "token_scorer_layer is 0; expected 1 to 3"),
        ({"token_scorer_layer": 4}, "token_scorer_layer is 4; expected 1 to 3"),
        ({**SCORER, "lora_enable": True}, "a token scorer and nothing else; leave --lora_enable out"),
        ({**SCORER, "tune_mm_mlp_adapter": True}, "nothing else; leave --tune_mm_mlp_adapter out"),
        ({**SCORER, "image_token_dropout": 0.5}, "nothing else; leave --image_token_dropout out"),
        ({**SCORER, "distillation_weight": 0.5}, "nothing else; leave --distillation_weight out"),
        ({**SCORER, "scheduler_type": "H"}, "the model has no trained scheduler"),
    ],
)
def test_flags_that_cannot_be_used(trained, adaptive_checkpoint, tmp_path, flags, message) -> None:
    with pytest.raises(OptionError, match=message):
        trained(tmp_path / "out", model_name_or_path=adaptive_checkpoint, **flags)
    assert not (tmp_path / "out").exists()


def test_plain_model_gets_no_scorer(trained, tmp_path) -> None:
    with pytest.raises(OptionError, match=r"no trained scheduler.*finetune_ada_heads.sh"):
        trained(tmp_path / "out", **SCORER)


def test_scorer_excuses_no_other_missing_tensor(trained, make_adaptive_checkpoint, tmp_path) -> None:
    base = make_adaptive_checkpoint()
    weights = load_file(base / "model.safetensors")
    del weights["scheduler.mlp_head.bias"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"scheduler\.mlp_head\.bias"):
        trained(tmp_path / "out", model_name_or_path=base, **SCORER)


def test_plans_are_those_of_inference(flags_of, adaptive_checkpoint, tmp_path) -> None:
    trainer = make_trainer(
        parse_arguments(flags_of(tmp_path / "out", model_name_or_path=adaptive_checkpoint, **SCORER))
    )
    (policy,) = trainer.policy.parts
    drawn = policy.inputs(0, 0, 0.0, 0, 6)
    assert drawn["learn_token_scores"] is True and "image_tokens" not in drawn
    assert drawn["noise"]((6, 3)).abs().sum() == 0
    units = trainer.model.units
    other = BudgetTraining(policy.recipe, units).inputs(0, 0, 0.0, 0, 6)
    assert torch.equal(drawn["granted_units"], other["granted_units"]), "budgets are drawn as ever"


# What it has learned, on the bundled model.


@torch.no_grad()
def attention_and_choices(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, list[torch.Tensor]]]:
    """Per sample the attention (36,) that its answer pays, and the tokens that scorer, salience and chance choose."""
    embedded = model.embed(batch["input_ids"], batch["attention_mask"], labels=batch["labels"], images=batch["images"])
    granted = torch.full((len(batch["input_ids"]),), model.units.tunable)
    with_token, execution = model.begin(embedded, granted, narrow=False)
    watch = AnswerAttention.of(with_token, execution.token_position, model.config)
    execution.watch = watch
    model(**with_token.inputs(), execution=execution, use_cache=False)
    attention, choices = [], {"learned": [], "salient": [], "random": []}
    for row, ((span,), column) in enumerate(zip(embedded.image_spans, execution.token_position, strict=True)):
        columns = slice(span.start, span.end)
        attention.append(watch.total[row, columns])
        scores = model.token_scorer(watch.states[row, columns], watch.states[row, column])
        choices["learned"].append(scores.topk(KEEP).indices)
        candidates = Candidates(embedded.embeds[row, columns], torch.zeros(len(span), 2))
        choices["salient"].append(select_salient(candidates, KEEP))
        choices["random"].append(select_random(candidates, KEEP))
    return torch.stack(attention), choices


@pytest.mark.slow
def test_learned_choice_foresees_the_attention_of_held_out_answers(root, flags_of, tmp_path) -> None:
    for name, seed, scenes in (("world", 0, 200), ("held-out", 1, 80)):
        generate(tmp_path / name, seed, scenes, 1)
    world, held_out = (
        {"data_path": tmp_path / name / "short.json", "image_folder": tmp_path / name / "images", "check_data": False}
        for name in ("world", "held-out")
    )
    shapes = {"mm_vision_select_layer": -1, "model_max_length": 512, **SCORER}
    flags = {"max_steps": 30, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "latency_budget": "0.5:1.0"}
    scored = tmp_path / "scored"
    train(flags=flags_of(scored, model_name_or_path=root / "ada/checkpoints/shapes-H", **world, **shapes, **flags))
    reading = flags_of(
        tmp_path / "not-used", model_name_or_path=scored, **held_out, **shapes, per_device_train_batch_size=80
    )
    trainer = make_trainer(parse_arguments(reading))
    (batch,) = trainer.get_train_dataloader()
    attention, choices = attention_and_choices(trainer.model.eval(), batch)
    caught = {
        name: torch.stack([row[kept].sum() / row.sum() for row, kept in zip(attention, chosen, strict=True)]).mean()
        for name, chosen in choices.items()
    }
    assert caught["learned"] > 1.05 * caught["salient"], caught
    assert caught["learned"] > 2 * caught["random"], caught
