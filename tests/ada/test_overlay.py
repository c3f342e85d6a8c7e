"""Every hook of the overlay, on models in memory; the programs themselves are run in tests/e2e."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ada import overlay
from ada.budget import LatencyBudget, TimeBudget
from ada.config import AdaLlavaConfig
from ada.latency.device_profile import DeviceFingerprint, Profile
from ada.latency.ttft_predictor import FixedTTFTPredictor
from ada.model.families import make_adaptive
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_plot import blocks
from ada.scheduling.sample_rng import Draws
from ada.train.arguments import AdaArguments
from llava import plugins
from llava.errors import OptionError
from llava.eval.answering.settings import checkpoint_fingerprint, recorded_settings
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.token_clock import TokenClock

PROMPT = torch.tensor([[1, 17, -200, 60, 7]])
RETURN = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}


@pytest.fixture
def plain(make_llava) -> LlavaLlamaForCausalLM:
    """A plain LLaVA, as it is loaded from a checkpoint without a scheduler."""
    model = make_llava("H", layers=6, prefix=3)
    config = LlavaConfig(**{**model.config.to_dict(), "model_type": "llava_llama"})
    copied = LlavaLlamaForCausalLM(config)
    copied.get_vision_tower().load_model()
    copied.load_state_dict(model.state_dict(), strict=False)
    copied.generation_config.eos_token_id = None
    return copied.eval()


def test_flags_are_read() -> None:
    parser = argparse.ArgumentParser()
    overlay.add_arguments(parser=parser, program="cli")
    none = {"latency_budget": None, "strict_latency_budget": False, "planner": None, "no_auto_calibrate": False}
    none |= {"image_tokens": None, "token_selector": None, "narrow_cache_gb": None, "reuse_cache_gb": None}
    none |= {"max_disagreement": None}
    assert vars(parser.parse_args([])) == none
    options = vars(parser.parse_args(["--latency-budget", "50%", "--strict-latency-budget", "--planner", "even"]))
    assert options == {**none, "latency_budget": LatencyBudget(0.5), "strict_latency_budget": True, "planner": "even"}


def test_flags_need_no_model_code() -> None:
    """The servers and clients that load no model start without transformers, which takes seconds."""
    program = "import sys, ada.overlay; print('transformers' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_the_published_type_has_a_class() -> None:
    classes = overlay.model_classes()
    assert classes["ada_llava_llama"] == (AdaLlavaConfig, AdaLlavaLlamaForCausalLM)
    assert set(classes) == {"ada_llava_llama", "ada_llava_mistral", "ada_llava_qwen"}


def test_a_plain_model_is_shown_the_three_ways_on(plain) -> None:
    ways = r"finetune_ada_heads\.sh, or pass --planner .*even\|last\|random .*--image-tokens auto"
    for planner in (None, "learned"):
        with pytest.raises(OptionError, match=ways):
            overlay.prepare_model(model=plain, options={"latency_budget": "0.5", "planner": planner})
    with pytest.raises(OptionError, match="finetune_ada_heads"):  # a request's budget, later
        overlay.generation_options(model=plain, tokenizer=None, options={"latency_budget": "0.5"})
    with pytest.raises(OptionError, match=r"--latency-budget is '1\.5'"):
        overlay.prepare_model(model=plain, options={"latency_budget": "1.5", "planner": "even"})
    overlay.prepare_model(model=plain, options={"latency_budget": None, "planner": None, "narrow_cache_gb": 1})
    assert (
        type(plain) is LlavaLlamaForCausalLM
        and overlay.generation_options(model=plain, tokenizer=None, options={}) == {}
    )


@pytest.mark.parametrize("planner", ["even", "last", "random"])
def test_a_plain_model_answers_under_an_untrained_plan(plain, pixels, planner) -> None:
    expected = plain.generate(PROMPT, images=pixels[:1], **RETURN).sequences
    flags = {"latency_budget": "0.75", "planner": planner, "narrow_cache_gb": "0.5"}
    overlay.prepare_model(model=plain, options=flags)
    assert plain.narrow_cache.max_bytes == 500_000_000
    options = overlay.generation_options(
        model=plain, tokenizer=None, options={"latency_budget": "0.75", "planner": planner}
    )
    assert options == {
        "latency_budget": LatencyBudget(0.75),
        "planner": planner,
        "strict_latency_budget": False,
        "on_plan": None,
        "ttft_predictor": None,
        "reuse": None,
        "max_disagreement": None,
        "image_tokens": None,
        "token_selector": None,
    }
    out = plain.generate(PROMPT, images=pixels[:1], **RETURN, **options)
    assert out.report.budget_met and 0.5 < out.report.granted <= 0.75
    assert out.execution_plan.share == pytest.approx(out.report.granted)
    assert out.report.prefill_flops["scheduler"] == 0 and out.report.prompt_tokens == 8, "no latency token"
    if planner == "last":
        assert out.execution_plan.layers[-1].is_empty
    # Without a budget, or with all of it, it is the model that it was.
    for budget in (None, 1.0):
        full = plain.generate(PROMPT, images=pixels[:1], latency_budget=budget, planner=planner, **RETURN)
        assert torch.equal(full.sequences, expected)
    with pytest.raises(OptionError, match="--planner is 'best'; expected one of learned"):
        plain.generate(PROMPT, images=pixels[:1], latency_budget=0.7, planner="best", **RETURN)
    with pytest.raises(OptionError, match="no scheduler"):
        plain.generate(PROMPT, images=pixels[:1], latency_budget=0.7, **RETURN)
    assert set(plain.generate(PROMPT, images=pixels[:1], **RETURN, **options, num_beams=2)) >= {"sequences"}


@pytest.mark.parametrize("kind", ["H", "L"])
def test_adopting_keeps_weights_and_takes_a_depth(plain, kind) -> None:
    keys = set(plain.state_dict())
    make_adaptive(plain, kind, num_prefix_layers=2)
    assert set(plain.state_dict()) == keys
    assert (plain.units.kind, plain.units.num_prefix_layers, plain.units.rank) == (kind, 2, 8)


def test_other_models_cannot_be_adopted() -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(OptionError, match="this model is LlamaForCausalLM"):
        overlay.prepare_model(model=LlamaForCausalLM(config), options={"latency_budget": 0.5, "planner": "even"})


def test_a_generation_is_described_in_json(make_llava, pixels) -> None:
    model = make_llava("H")
    out = model.generate(PROMPT, images=pixels[:1], latency_budget=0.1, **RETURN)
    metadata = overlay.describe_generation(model=model, output=out, timing={})
    assert json.loads(json.dumps(metadata))["plan"] == out.execution_plan.to_json()
    assert metadata["prefill_gflops"] == pytest.approx(sum(metadata["prefill_flops"].values()) / 1e9)
    assert metadata["requested"] == 0.1 and metadata["granted"] == 0.4 and metadata["budget_met"] is False
    for said in (
        "budget 0.1",
        "granted 0.4",
        "below this model's minimum",
        "layers 2/5",
        "heads 16/40",
        "neurons 200/500",
    ):
        assert said in metadata["summary"]
    assert overlay.describe_generation(model=model, output=SimpleNamespace(), timing={}) == {}


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("kind", ["H", "L"])
def test_a_row_is_described_as_if_it_were_alone(make_llava, pixels, kind, calibrated) -> None:
    """Its neighbour is longer, and runs another plan."""
    model = make_llava(kind)
    predictor = None
    if calibrated:
        plan, rest = [5.0, 20.0, 0.3, 5e-5, 3.0], [2.0, 0.1, 0.5, 40.0, 0.9, 1e-4, 30.0, 4.0]
        profile = Profile(DeviceFingerprint.of(model), "2026-01-01", plan, rest, [1.0] * 8, 1.1, 1.1, {})
        predictor = FixedTTFTPredictor(profile, model.units)
    prompts = [PROMPT, torch.tensor([[1, 17, 23, 9, -200, 60, 7, 31]])]
    width = prompts[1].shape[1]
    ids = torch.cat([torch.nn.functional.pad(prompt, (width - prompt.shape[1], 0)) for prompt in prompts])
    mask = (torch.arange(width) >= torch.tensor([[width - prompt.shape[1]] for prompt in prompts])).long()
    budgets = [0.6, 0.9]
    both = model.generate(
        ids,
        attention_mask=mask,
        images=pixels[:2],
        latency_budget=budgets,
        ttft_predictor=predictor,
        clock=TokenClock(),
        **RETURN,
    )
    for row, budget in enumerate(budgets):
        alone = model.generate(
            prompts[row],
            images=pixels[row : row + 1],
            latency_budget=budget,
            ttft_predictor=predictor,
            clock=TokenClock(),
            **RETURN,
        )
        metadata = overlay.describe_row(model=model, output=both, row=row)
        assert metadata == overlay.describe_row(model=model, output=alone, row=0)
        shown = overlay.describe_generation(model=model, output=alone, timing={"time_to_first_token_ms": 1.0})
        own = {"plan", "to_plan_ms", "plan_ms", "preprocess_ms", "before_ms", "summary", "measured_ms"}
        assert all(metadata[name] == shown[name] for name in shown.keys() - own)
        assert metadata["to_plan_ms"] is None and shown["to_plan_ms"] > 0, "the batch's times are not the row's"
        assert ExecutionPlan.from_json(metadata["plan"]) == alone.execution_plan and metadata["padding"] == 0
    assert overlay.describe_row(model=model, output=SimpleNamespace(), row=0) == {}


def test_chat_commands(make_llava, plain) -> None:
    calibrated = {"ttft_predictor": object()}  # no need to calibrate for a time
    options = {"latency_budget": None, "planner": None, **calibrated}
    session = SimpleNamespace(model=make_llava("H"), options=options, last_metadata=None, images=["one"])

    def say(command: str, argument: str = "") -> str | None:
        return overlay.chat_command(command=command, argument=argument, session=session)

    assert say("budget") == "budget: none" and say("plan") == "no plan yet: ask something first"
    assert say("budget", "50%") == "budget: 50%" and session.options["latency_budget"] == LatencyBudget(0.5)
    assert say("budget", "1.2s") == "budget: 1.2s" and session.options["latency_budget"] == TimeBudget(1200)
    assert say("budget", "0.99999999") == "budget: 0.99999999", "no digit is lost"
    with pytest.raises(OptionError, match="'fast'"):
        say("budget", "fast")
    assert say("budget") == "budget: 0.99999999", "a wrong value changes nothing"
    plan = ExecutionPlan.full(2, 4)
    session.last_metadata = {"plan": plan.to_json()}
    assert say("plan") == blocks(plan) and say("weather") is None
    assert {usage.split()[0] for usage in overlay.chat_help()} == {"/budget", "/image-tokens", "/plan"}
    session.model, session.options = plain, {"planner": None}
    with pytest.raises(OptionError, match="finetune_ada_heads"):
        say("budget", "0.5")
    assert "latency_budget" not in session.options


def test_chat_command_image_tokens_sets_shows_and_refuses(make_llava) -> None:
    session = SimpleNamespace(model=make_llava("H"), options={"latency_budget": None}, last_metadata=None, images=[1])

    def say(argument: str = "") -> str | None:
        return overlay.chat_command(command="image-tokens", argument=argument, session=session)

    assert say() == "image tokens: as the model was trained"
    assert say("25%") == "image tokens: 25%" and say("50%/4") == "image tokens: 50%/4"
    for wrong, why in (("0", "is '0'"), ("auto", "no latency budget"), ("200%", "'200%'")):
        with pytest.raises(OptionError, match=why):
            say(wrong)
    assert say() == "image tokens: 50%/4" == f"image tokens: {session.options['image_tokens']}"
    session.options["latency_budget"] = LatencyBudget(0.7)
    assert say("auto") == "image tokens: auto"
    session.images = []
    with pytest.raises(OptionError, match="there is no image"):
        say("auto")


@pytest.mark.parametrize(("amount", "said"), [("all", "4 of 4"), ("2", "2 of 4"), ("3/1", "3 of 4, 1 by later layers")])
def test_chat_command_plan_says_how_many_image_tokens_were_read(make_llava, pixels, amount, said) -> None:
    model = make_llava("H")
    output = model.generate(PROMPT, images=pixels[:1], image_tokens=amount, **RETURN)
    metadata = overlay.describe_generation(model=model, output=output, timing={})
    session = SimpleNamespace(model=model, options={}, last_metadata=metadata)
    drawn = overlay.chat_command(command="plan", argument="", session=session)
    assert drawn == f"{blocks(output.execution_plan)}\nimage tokens: {said}"


def test_training_config_becomes_adaptive_only_when_asked() -> None:
    plain = LlavaConfig(num_hidden_layers=6, num_attention_heads=8, hidden_size=64)
    overlay.prepare_training_config(config=plain, arguments={AdaArguments: AdaArguments()})
    assert plain.model_type == "llava_llama" and not hasattr(plain, "scheduler_type")
    options = AdaArguments(scheduler_type="L", num_prefix_layers=2, latency_budget="0.5:0.9")
    overlay.prepare_training_config(config=plain, arguments={AdaArguments: options})
    found = [getattr(plain, name) for name in ("model_type", "scheduler_type", "num_prefix_layers", "scheduler_rank")]
    assert found == ["ada_llava_llama", "L", 2, 8] and plain.token_selecting == "none"
    assert not hasattr(plain, "latency_budget")
    assert overlay.training_dataclasses() == [AdaArguments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (0.4, 1.0)),
        ("0.5:1.0", (0.5, 1.0)),
        ("60%:0.8", (0.6, 0.8)),
        ("0.7", (0.7, 0.7)),
        ("0.1:0.9", (0.1, 0.9)),
    ],
)
def test_training_budgets(make_llava, text, expected) -> None:
    model = make_llava("L")
    policy = overlay.training_policy(model=model, arguments={AdaArguments: AdaArguments(latency_budget=text)})
    assert policy.recipe.budgets == expected
    drawn = policy.recipe.draw_units(model.units, Draws(0, 0), 400).unique().tolist()
    assert drawn == list(range(model.units.granted(expected[0]), model.units.granted(expected[1]) + 1))


@pytest.mark.parametrize("text", ["0.9:0.5", "0.1:0.3", "fast", "0.5:1.5", ":", "0.5:"])
def test_impossible_training_budgets(make_llava, text) -> None:
    with pytest.raises(OptionError, match="budget is"):
        AdaArguments(latency_budget=text).budget_range(make_llava("L").units)


def test_training_policy_of_a_plain_model_is_none(plain) -> None:
    assert overlay.training_policy(model=plain, arguments={AdaArguments: AdaArguments()}) is None


def test_training_policy_without_budgets_has_no_figures(make_llava) -> None:
    policy = overlay.training_policy(model=make_llava("L"), arguments={AdaArguments: AdaArguments()})
    assert policy.figures(SimpleNamespace()) == {}


@pytest.fixture
def fresh_manager():
    plugins.plugin_manager.cache_clear()
    yield
    plugins.plugin_manager.cache_clear()


def test_the_shell_works_without_the_overlay(plain, pixels, monkeypatch, fresh_manager) -> None:
    from llava.serve.cli import parse_arguments

    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(()))  # not installed
    for name in [name for name in sys.modules if name == "ada" or name.startswith("ada.")]:
        monkeypatch.setitem(sys.modules, name, None)  # and not to be imported
    assert not plugins.plugin_manager().get_plugins()
    assert "latency_budget" not in vars(parse_arguments([]))
    with pytest.raises(SystemExit):
        parse_arguments(["--latency-budget", "0.5"])
    assert plugins.merged(plugins.hooks().model_classes()) == {}
    assert plain.generate(PROMPT, images=pixels[:1], max_new_tokens=3).shape == (1, 3)


def test_a_broken_plug_in_is_named(monkeypatch, fresh_manager) -> None:
    entry = importlib.metadata.EntryPoint("broken", "no_such_module.overlay", "llava")
    broken = SimpleNamespace(entry_points=[entry], metadata={"name": "broken"})
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter((broken,)))
    with pytest.raises(ImportError, match=r"'llava' failed to import: .*no_such_module"):
        plugins.plugin_manager()


def test_answers_of_other_promises_are_not_continued(adaptive_checkpoint, tmp_path) -> None:
    shutil.copytree(adaptive_checkpoint, tmp_path / "copy")
    seen = {checkpoint_fingerprint(tmp_path / "copy")}
    for text in ("{}", "[]"):
        (tmp_path / "copy" / "promises.json").write_text(text)
        seen.add(checkpoint_fingerprint(tmp_path / "copy"))
    assert len(seen) == 3


def test_budget_of_a_chat_may_change_and_what_is_known_stays(make_llava) -> None:
    options = {"latency_budget": 1.0, "reuse_cache_gb": 0.001, "no_auto_calibrate": True}
    model = make_llava("H")
    known = overlay.prepare_model(model=model, options=options)["reuse"]
    assert "reuse" not in overlay.prepare_model(model=model, options={**options, "reuse": known, "latency_budget": 0.6})


def test_answers_of_another_frontier_are_not_continued(adaptive_checkpoint, tmp_path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(adaptive_checkpoint, folder)
    before = recorded_settings({"image_tokens": "auto"}, str(folder))
    (folder / "frontier.json").write_text("{}")
    measured = recorded_settings({"image_tokens": "auto"}, str(folder))
    (folder / "frontier.json").write_text('{"version": 1}')
    assert len({settings["checkpoint"] for settings in (before, measured, recorded_settings({}, str(folder)))}) == 3
