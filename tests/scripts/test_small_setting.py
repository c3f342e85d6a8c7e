"""Every recipe, trained for two steps in its small setting (PRESET=shapes), with and without a scheduler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.marks import slow_except

from playground.shapes.generate import generate

STEPS, SCENES = 2, 12
FIRST = ["finetune", "finetune_full_schedule", "finetune_lora", "finetune_qlora", "finetune_sqa"]
V1_5 = ["finetune", "finetune_lora", "finetune_task", "finetune_task_lora"]
PLAIN = ["pretrain", *FIRST, "v1_5/pretrain", *(f"v1_5/{name}" for name in V1_5)]
ADAPTIVE = {"v1_5/finetune_ada_heads": "H", "v1_5/finetune_ada_layers": "L"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A shapes world of few scenes."""
    folder = tmp_path_factory.mktemp("world")
    generate(folder, 0, SCENES, 1)
    return folder


@pytest.fixture
def train(run_script, world, tmp_path):
    """``train(recipe, *flags, **variables)``: the folder of a result, trained for two steps of two samples."""

    def run(recipe: str, *flags: str, **variables: str) -> Path:
        part = "captions" if recipe.endswith("pretrain") else "conversations"
        settings = {"DATA": world / f"{part}.json", "OUT": tmp_path / "result", "STEPS": STEPS, "BATCH": 2, **variables}
        flags = ("--dataloader_num_workers", "0", "--dataloader_persistent_workers", "False", *flags)
        ran = run_script(f"scripts/{recipe}.sh", *flags, PRESET="shapes", SAVE_STEPS=STEPS, **settings)
        assert ran.returncode == 0, ran.stderr
        return tmp_path / "result"

    return run


@pytest.mark.parametrize("recipe", slow_except(PLAIN, "pretrain", "v1_5/finetune"))
def test_recipe_in_its_small_setting_trains(train, recipe):
    folder = train(recipe)
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    assert state["global_step"] == STEPS
    lora, stage1 = recipe.endswith("lora"), recipe.endswith("pretrain")
    written = "adapter_model.safetensors" if lora else "mm_projector.bin" if stage1 else "model.safetensors"
    assert (folder / written).is_file()


@pytest.mark.parametrize("recipe", ADAPTIVE)
def test_adaptive_recipe_in_its_small_setting_trains_a_scheduler(train, recipe):
    config = json.loads((train(recipe) / "config.json").read_text())
    assert config["scheduler_type"] == ADAPTIVE[recipe] and config["num_prefix_layers"] == 2


def test_token_dial_in_the_small_setting_leaves_a_plain_model(train):
    config = json.loads((train("v1_5/finetune", "--image_token_dropout", "0.1") / "config.json").read_text())
    assert (config["model_type"], config["image_token_dropout"]) == ("llava_llama", 0.1)


def test_token_scorer_in_the_small_setting_is_trained_at_the_first_tunable_layer(train):
    folder = train("v1_5/finetune_token_scorer", "--save_strategy", "steps")
    config = json.loads((folder / "config.json").read_text())
    assert (config["scheduler_type"], config["token_scorer_layer"]) == ("H", 2)


@pytest.mark.parametrize("recipe", slow_except(["finetune", "v1_5/finetune_task"]))
def test_any_stage_2_recipe_with_scheduler_trains_one(train, recipe):
    config = json.loads((train(recipe, SCHEDULER="L") / "config.json").read_text())
    assert config["scheduler_type"] == "L"


def test_adapters_of_the_small_setting_can_be_merged(train, run_script, root, tmp_path):
    import runpy

    folder = train("finetune_lora", SCHEDULER="H")
    merge = runpy.run_path(str(root / "scripts/merge_lora_weights.py"))["merge_lora"]
    merge(str(folder), str(root / "ada/checkpoints/shapes-base"), tmp_path / "merged")
    assert json.loads((tmp_path / "merged/config.json").read_text())["scheduler_type"] == "H"


@pytest.mark.slow
def test_bundled_models_in_a_tiny_setting_are_trained_from_nothing(run_script, tmp_path):
    stages = ("TOWER", "LANGUAGE", "STAGE1", "STAGE2", "BUDGET", "SCORER")
    steps = {f"{stage}_STEPS": 2 for stage in stages} | {"FRONTIER_QUESTIONS": 4}
    ran = run_script("scripts/shapes/train.sh", OUT=tmp_path, SCENES=200, BUNDLE=tmp_path / "bundle", **steps)
    assert ran.returncode == 0, ran.stderr
    for name in ("shapes-base", "shapes-H", "shapes-L"):
        assert (tmp_path / "bundle" / name / "model.safetensors").is_file()
        assert (tmp_path / "bundle" / name / "frontier.json").is_file() == (name != "shapes-base")


@pytest.mark.slow
def test_ablations_in_a_tiny_setting_make_a_table(run_script, tmp_path):
    settings = {"STEPS": 2, "SEEDS": 1, "QUESTIONS": 4, "SCENES": 200, "ONLY": "as published|sandwich budgets"}
    ran = run_script("scripts/shapes/ablations.sh", OUT=tmp_path / "out", DATA=tmp_path / "data", **settings)
    assert ran.returncode == 0, ran.stderr
    assert "sandwich budgets" in (tmp_path / "out/ablations.md").read_text()
