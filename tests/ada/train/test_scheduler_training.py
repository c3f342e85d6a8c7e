"""The overlay's stage 2 on the tiny LLaVA: checkpointing, accumulation and bfloat16 together, H and L."""

import json
import re
from itertools import product

import pytest
import torch
from fixtures.marks import slow_except
from safetensors.torch import load_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model.builder import load_pretrained_model
from llava.train.train import make_trainer, parse_arguments

pytestmark = pytest.mark.integration  # they train

BAND = re.compile(r"loss_budget_(\d\.\d\d)_(\d\.\d\d)")  # a band of one budget alone ends where it begins


@pytest.fixture(scope="module")
def base(make_checkpoint):
    return make_checkpoint(num_hidden_layers=4)


@pytest.fixture(scope="module", params=["H", "L"])
def run(request, trained, base, tmp_path_factory):
    """(kind, the output folder) of 6 steps with two prefix layers; checkpoints of the last two."""
    out = trained(
        tmp_path_factory.mktemp("run") / "out",
        model_name_or_path=base,
        scheduler_type=request.param,
        num_prefix_layers=2,
        scheduler_rank=2,
        latency_budget="0.5:1.0",
        max_steps=6,
        bf16=True,
        gradient_checkpointing=True,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=3,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
    )
    return request.param, out


def history(folder):
    return [line for line in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "loss" in line]


def bands(line):
    return {key: value for key, value in line.items() if key.startswith("loss_budget_")}


def test_every_tensor_of_the_scheduler_learns(run):
    """Between two steps Adam moves what has a gradient, and nothing else: there is no weight decay."""
    _, out = run
    first, last = (load_file(out / f"checkpoint-{step}" / "model.safetensors") for step in (5, 6))
    names = {key for key in first if key.startswith("scheduler.")}
    assert {key.split(".")[1] for key in names} == {"mlp_head", "scheduler_up_proj"}
    assert all(not torch.equal(first[key], last[key]) for key in names)
    learned = {key for key in first if not torch.equal(first[key], last[key])}
    assert learned == {key for key in first if "vision_tower" not in key}


def test_loss_is_logged_by_budget_band(run):
    _, out = run
    lines = history(out)
    assert len(lines) == 6
    assert all(bands(line) for line in lines)
    seen = set().union(*(bands(line) for line in lines))
    edges = [BAND.fullmatch(key).groups() for key in seen]
    assert all(0.5 <= float(low) <= float(high) <= 1.0 for low, high in edges)
    assert len(seen) > 1
    assert all(0 < figure < 20 for line in lines for figure in bands(line).values())


def test_the_checkpoint_opens_and_answers(run, base):
    kind, out = run
    saved = load_file(out / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert {key for key in saved if not key.startswith("scheduler.")} == set(load_file(base / "model.safetensors"))
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "ada_llava_llama"
    assert (config["scheduler_type"], config["num_prefix_layers"], config["scheduler_rank"]) == (kind, 2, 2)
    _, model, processor, _ = load_pretrained_model(str(out), None, "any", device="cpu")  # raises on any misfit
    state = model.state_dict()
    assert all(torch.equal(state[key], value.float()) for key, value in saved.items())
    side = processor.crop_size["height"]
    output = model.generate(
        torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]]),
        images=torch.full((1, 3, side, side), 0.5),
        min_new_tokens=4,
        max_new_tokens=4,
        do_sample=False,
        latency_budget=0.75,
        return_dict_in_generate=True,
    )
    assert output.sequences.shape == (1, 4)
    assert output.report.to_json()["granted"] == 0.75


def test_a_single_budget_has_one_band(trained, base, tmp_path):
    """The band's loss is then the step's."""
    out = trained(
        tmp_path / "out",
        model_name_or_path=base,
        scheduler_type="L",
        num_prefix_layers=2,
        latency_budget="0.75",
        bf16=True,
    )
    for line in history(out):
        (figure,) = bands(line).items()
        low, high = BAND.fullmatch(figure[0]).groups()
        assert float(low) <= 0.75 < float(high)
        assert figure[1] == pytest.approx(line["loss"], abs=0.02)


def test_training_goes_on_from_a_scheduler(trained, run, tmp_path):
    """A checkpoint with a scheduler keeps it, its kind and its prefix, without a flag."""
    kind, base = run
    out = trained(tmp_path / "out", model_name_or_path=base, learning_rate=0.0, max_steps=1)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key].float(), after[key]) for key in before)
    config = json.loads((out / "config.json").read_text())
    assert (config["scheduler_type"], config["num_prefix_layers"]) == (kind, 2)


def test_without_a_scheduler_nothing_is_added(trained, tmp_path, base):
    out = trained(tmp_path / "out", model_name_or_path=base, max_steps=1)
    assert not [key for key in load_file(out / "model.safetensors") if "scheduler" in key]
    assert json.loads((out / "config.json").read_text())["model_type"] == "llava_llama"
    assert not bands(history(out)[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_prefix_layers", 2),
        ("scheduler_rank", 2),
        ("latency_budget", "0.5:1.0"),
        ("planner", "even"),
        ("scheduler_input", "budget"),
        ("scheduler_lr", 0.1),
        ("scheduler_temperature", "1:0.5"),
        ("budget_sampling", "sandwich"),
        ("distillation_weight", 0.5),
    ],
)
def test_flags_of_budgets_without_a_scheduler_are_refused(trained, base, tmp_path, name, value):
    with pytest.raises(OptionError, match=rf"--{name} is .*, but the model has no scheduler; give --scheduler_type H"):
        trained(tmp_path / "out", model_name_or_path=base, **{name: value})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("budget", ["0.9:0.6", "0.3", "fast", "0.5:", "0:1", "0.5:1.5"])
def test_budget_ranges_that_are_none(trained, base, tmp_path, budget):
    with pytest.raises(OptionError, match="budget"):
        trained(tmp_path / "out", model_name_or_path=base, scheduler_type="L", latency_budget=budget)
    assert not (tmp_path / "out").exists()


SETTINGS = {
    "random": {"planner": "random"},
    "sandwich": {"budget_sampling": "sandwich", "distillation_weight": 0.5, "scheduler_temperature": "1:0.5"},
}


@pytest.mark.parametrize(("kind", "setting"), slow_except(product("HL", SETTINGS), ("H", "random"), ("L", "sandwich")))
def test_training_does_not_depend_on_how_a_step_is_cut(trained, base, tmp_path, kind, setting):
    """One batch of four, or four of one: the same losses, band by band. SGD, as Adam blows up rounding."""
    flags = {
        "model_name_or_path": base,
        "scheduler_type": kind,
        "num_prefix_layers": 2,
        "scheduler_rank": 2,
        "max_steps": 3,
        "optim": "sgd",
        "learning_rate": 0.1,
        **SETTINGS[setting],
    }
    curves = []
    for batch, passes in ((4, 1), (2, 2), (1, 4)):
        out = trained(
            tmp_path / str(batch), per_device_train_batch_size=batch, gradient_accumulation_steps=passes, **flags
        )
        lines = [{"loss": line["loss"], **bands(line)} for line in history(out)]
        curves.append({(step, key): value for step, line in enumerate(lines) for key, value in line.items()})
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=2e-4)


def test_the_scheduler_learns_at_its_own_rate_and_temperature(flags_of, base, tmp_path):
    flags = {"scheduler_type": "H", "num_prefix_layers": 2, "scheduler_rank": 2, "scheduler_temperature": "1:0.5"}
    trainer = make_trainer(
        parse_arguments(flags_of(tmp_path / "out", model_name_or_path=base, scheduler_lr=0.007, **flags))
    )
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    assert {name for name, rate in rates.items() if rate == 0.007} == {
        name for name in rates if name.startswith("scheduler.")
    }
    assert len(set(rates.values())) == 2
    seen = []
    inputs = trainer.policy.inputs
    trainer.policy.inputs = lambda *args: seen.append(args[2]) or inputs(*args)
    trainer.train()
    assert seen == [0.0, 1.0], "from the first step's temperature to the last step's"
