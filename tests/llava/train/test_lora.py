"""LoRA: what learns, what is left, what it answers merged and unmerged, and that a stopped run goes on exactly."""

import json
import logging
import re
import runpy
import shutil
import sys

import peft
import pytest
import torch
from fixtures.training import LORA, SCHEDULER, answer, opened
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file

from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.train.train import train


@pytest.fixture(scope="module")
def adapter(trained, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lora") / "out", **LORA, save_strategy="steps", save_steps=1)


@pytest.fixture(scope="module")
def adaptive_adapter(trained, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lora") / "ada", **LORA, **SCHEDULER)


@pytest.fixture
def merge(root, monkeypatch):
    """``merge(adapter, base, target)`` runs the script; its exit code."""

    def run(model_path, base, target):
        flags = ["--model-path", model_path, "--model-base", base, "--save-model-path", target]
        monkeypatch.setattr(sys, "argv", ["merge", *map(str, flags)])
        try:
            runpy.run_path(str(root / "scripts" / "merge_lora_weights.py"))["main"]()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


def test_opening_it_warns_of_nothing_that_its_user_cannot_change(adapter, tiny_checkpoint, recwarn):
    opened(adapter, tiny_checkpoint)
    assert not [str(one.message) for one in recwarn if issubclass(one.category, FutureWarning)]


def test_what_is_left(adapter, tiny_checkpoint):
    for folder in (adapter, adapter / "checkpoint-1"):
        assert not (folder / "model.safetensors").exists()
        saved = load_file(folder / "adapter_model.safetensors")
        assert len(saved) == 2 * 7 * 2  # two matrices for each of seven projections in two layers
        assert all(key.startswith("base_model.model.model.layers.") for key in saved)
        others = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
        parts = [f"mm_projector.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")]
        assert set(others) == {f"base_model.model.model.{part}" for part in parts}
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
    before = load_file(tiny_checkpoint / "model.safetensors")
    assert not torch.equal(others["base_model.model.model.mm_projector.0.bias"], before["model.mm_projector.0.bias"])
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
    assert json.loads((adapter / "config.json").read_text())["model_type"] == "llava_llama"


def test_peft_itself_reads_it(adapter, tiny_checkpoint):
    """As upstream opens an adapter: the base, what was trained in full, then peft's own loading."""
    ours = answer(*opened(adapter, tiny_checkpoint)).logits
    model, processor = opened(tiny_checkpoint)
    others = torch.load(adapter / "non_lora_trainables.bin", weights_only=True)
    model.load_state_dict({k.removeprefix("base_model.model."): v for k, v in others.items()}, strict=False)
    theirs = answer(peft.PeftModel.from_pretrained(model, adapter).eval(), processor).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_merged_and_unmerged_answer_alike(adapter, tiny_checkpoint, merge, tmp_path):
    assert merge(adapter, tiny_checkpoint, tmp_path / "merged") == 0
    plain = answer(*opened(tiny_checkpoint)).logits
    merged = answer(*opened(tmp_path / "merged")).logits
    unmerged = answer(*opened(adapter, tiny_checkpoint, merge_lora=False)).logits
    assert (merged - plain).abs().max() > 1e-3, "the adapter has learned something"
    torch.testing.assert_close(unmerged, merged, atol=1e-4, rtol=0)
    torch.testing.assert_close(answer(*opened(adapter, tiny_checkpoint)).logits, merged, atol=1e-4, rtol=0)
    assert merge(adapter, tiny_checkpoint, tmp_path / "merged") == 2, "the folder is in use"
    assert merge(tiny_checkpoint, tiny_checkpoint, tmp_path / "other") == 2, "nothing to merge"


def test_scheduler_is_trained_in_full_with_adapters(adaptive_adapter, tiny_checkpoint, merge, tmp_path):
    others = torch.load(adaptive_adapter / "non_lora_trainables.bin", weights_only=True)
    names = {key.removeprefix("base_model.model.") for key in others}
    assert {name for name in names if name.startswith("scheduler.mlp_head")} == {
        "scheduler.mlp_head.weight",
        "scheduler.mlp_head.bias",
    }
    assert sum(name.startswith("scheduler.scheduler_up_proj.net.") for name in names) == 6
    assert merge(adaptive_adapter, tiny_checkpoint, tmp_path / "merged") == 0
    merged = answer(*opened(tmp_path / "merged"), latency_budget=0.75)
    model, processor = opened(adaptive_adapter, tiny_checkpoint)
    loaded = answer(model, processor, latency_budget=0.75)
    assert loaded.report.masked_layers == merged.report.masked_layers == 0, "merged on load: layers are cut"
    unmerged, _ = opened(adaptive_adapter, tiny_checkpoint, merge_lora=False)
    masked = answer(unmerged, processor, latency_budget=0.75)
    assert masked.report.masked_layers > 0 and "adapted" in masked.report.masking
    assert loaded.execution_plan == merged.execution_plan == masked.execution_plan
    for found in (loaded, masked):
        torch.testing.assert_close(found.logits, merged.logits, atol=1e-4, rtol=0)


def test_with_its_adapter_off_the_base_itself_answers(trained, tiny_checkpoint, tmp_path):
    """A budget as an adapter leaves the weights that it was trained on as they are."""
    budgets = trained(tmp_path / "ada", **LORA, **SCHEDULER, freeze_mm_mlp_adapter=True)
    model, processor = opened(budgets, tiny_checkpoint, merge_lora=False)
    alone = answer(*opened(tiny_checkpoint)).logits
    assert not torch.equal(answer(model, processor).logits, alone), "the adapter has learned something"
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(False)
    assert torch.equal(answer(model, processor).logits, alone)


def test_what_learns_is_printed_by_part(flags_of, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(flags=flags_of(tmp_path / "out", **LORA, **SCHEDULER, bf16=True, max_steps=1))
    (line,) = [record.getMessage() for record in caplog.records if "parameters learn" in record.getMessage()]
    for part in ("LoRA adapters", "projector", "scheduler"):
        assert part in line
    assert "language model" not in line and "vision tower" not in line
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_resumed_adapter_run_equals_an_uninterrupted_one(trained, adapter, tmp_path):
    """The module's run has two steps; this one stops after the first, and is started again."""
    out = trained(tmp_path / "out", **LORA, save_strategy="steps", save_steps=1, max_steps=1)
    (out / "adapter_model.safetensors").unlink()
    trained(tmp_path / "out", **LORA, save_strategy="steps", save_steps=1)
    for name, load in (
        ("adapter_model.safetensors", load_file),
        ("non_lora_trainables.bin", lambda path: torch.load(path, weights_only=True)),
    ):
        ours, expected = load(out / name), load(adapter / name)
        assert all(torch.equal(ours[key], expected[key]) for key in expected), name


def test_a_run_cannot_go_on_with_other_flags(trained, adapter, tmp_path):
    """Which says so by what the checkpoints are, too, where nothing says what the run was started with."""
    out = trained(tmp_path / "whole", save_strategy="steps", save_steps=1, max_steps=1)
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    cases = (
        (adapter, {}, "--lora_enable True (now False)", "holds a LoRA adapter, but --lora_enable is not True"),
        (adapter, {**LORA, "lora_r": 8, "max_steps": 3}, "--lora_r 4 (now 8)", "); expected (8, "),
        (out, LORA, "--lora_enable False (now True)", "holds no adapter"),
    )
    for folder, flags, noted, _ in cases:
        with pytest.raises(CheckpointError, match=re.escape(noted)):
            trained(folder, **flags)
    for folder in (adapter, out):
        (folder / "started_with.json").unlink()
    for folder, flags, _, found in cases:
        with pytest.raises(CheckpointError, match=re.escape(found)):
            trained(folder, **flags)


def test_an_adapter_to_start_from(trained, adapter, tmp_path):
    out = trained(tmp_path / "out", **LORA, lora_weight_path=adapter, learning_rate=0.0, max_steps=1)
    first, again = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, out))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_an_adapter_of_a_language_model_brings_its_projector(trained, plain_base, tiny_checkpoint, tmp_path):
    fields = json.loads((tiny_checkpoint / "config.json").read_text())
    base = {"model_name_or_path": plain_base, "vision_tower": tiny_checkpoint / fields["mm_vision_tower"], **LORA}
    base["mm_projector_type"] = fields["mm_projector_type"]
    first = trained(tmp_path / "first", **base, max_steps=1)
    again = trained(tmp_path / "again", **base, lora_weight_path=first, learning_rate=0.0, max_steps=1)
    one, other = (torch.load(folder / "non_lora_trainables.bin", weights_only=True) for folder in (first, again))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert any("mm_projector" in key for key in one)


@pytest.fixture
def language_model(plain_base, tiny_checkpoint, tmp_path):
    """The flags of a language model with a projector of stage 1; and that projector's tensors."""
    held = load_file(tiny_checkpoint / "model.safetensors")
    projector = {key: value + 1 for key, value in held.items() if "mm_projector" in key}
    torch.save(projector, tmp_path / "mm_projector.bin")
    flags = {"model_name_or_path": plain_base, "vision_tower": tiny_checkpoint / "tower"}
    flags |= {"mm_projector_type": "mlp2x_gelu", "pretrain_mm_mlp_adapter": tmp_path / "mm_projector.bin"}
    return flags, projector


def test_a_frozen_projector_that_the_base_lacks_is_saved_with_the_adapter(
    trained, plain_base, language_model, tmp_path
):
    flags, projector = language_model
    frozen = {**LORA, "freeze_mm_mlp_adapter": True, "max_steps": 1}
    out = trained(tmp_path / "out", **frozen, **flags)
    model, _ = opened(out, plain_base)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in projector.items())


def test_a_frozen_projector_is_saved_only_where_it_is_not_the_bases(trained, language_model, tmp_path):
    frozen = {**LORA, "freeze_mm_mlp_adapter": True, "max_steps": 1}
    for name, given in (("own", {}), ("other", {"pretrain_mm_mlp_adapter": tmp_path / "mm_projector.bin"})):
        out = trained(tmp_path / name, **frozen, **given)
        others = torch.load(out / "non_lora_trainables.bin", weights_only=True)
        expected = {f"base_model.model.{key}": value for key, value in language_model[1].items()} if given else {}
        assert others.keys() == expected.keys()
        assert all(torch.equal(others[key], expected[key]) for key in expected)


def test_an_adapter_whose_projector_is_nowhere_is_refused_until_it_gets_its_file(
    trained, plain_base, language_model, tmp_path
):
    """As runs with a frozen projector used to leave it."""
    flags, projector = language_model
    out = trained(tmp_path / "out", **LORA, **flags, learning_rate=0.0, max_steps=1)
    torch.save({}, out / "non_lora_trainables.bin")
    with pytest.raises(CheckpointError, match=r"mm_projector\.\S+ is neither in .*; copy the mm_projector\.bin"):
        opened(out, plain_base)
    shutil.copy(tmp_path / "mm_projector.bin", out)
    model, _ = opened(out, plain_base)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in projector.items())


@pytest.mark.parametrize("rows", [60, 64])
def test_rows_of_added_tokens_are_saved_with_the_adapter(trained, make_checkpoint, tmp_path, rows):
    """Each the mean of the tokenizer's 60, as training starts them; a table may be longer than that."""
    base = make_checkpoint(vocab_size=rows)
    flags = {**LORA, "model_name_or_path": base, "mm_use_im_start_end": True, "save_strategy": "steps", "save_steps": 1}
    out = trained(tmp_path / "out", **flags, max_steps=1)
    trained(out, **flags, max_steps=2)  # which reads what it has saved
    torch.manual_seed(rows)
    model, _ = opened(out, base)
    before = load_file(base / "model.safetensors")
    for name, table in (
        ("model.embed_tokens", model.get_input_embeddings()),
        ("lm_head", model.get_output_embeddings()),
    ):
        expected = before[f"{name}.weight"][:60]
        torch.testing.assert_close(table.weight, torch.cat([expected, expected.mean(0).expand(2, -1)]))


def test_an_adapter_without_its_base(adapter, adaptive_adapter, plain_base, tmp_path):
    config = adapter / "adapter_config.json"
    fields = json.loads(config.read_text())
    for name in ("gone", None):
        config.write_text(json.dumps({**fields, "base_model_name_or_path": name}))
        with pytest.raises(CheckpointError, match="--model-base"):
            opened(adapter)
    config.write_text(json.dumps(fields))
    (adaptive_adapter / "adapter_model.safetensors").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"none of adapter_model\.safetensors"):
        opened(adaptive_adapter, plain_base)
    (tmp_path / "away").rename(adaptive_adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"bits": 4}, "--bits 4 needs --lora_enable"),
        ({"bits": 5, "lora_enable": True}, "--bits is 5"),
        ({"lora_bias": "some", "lora_enable": True}, "--lora_bias is 'some'"),
        ({"quant_type": "int4", "lora_enable": True}, "--quant_type is 'int4'"),
        ({"lora_weight_path": "x"}, "needs --lora_enable"),
        ({"lora_weight_path": "nowhere", "lora_enable": True}, "nowhere holds no adapter"),
    ],
    ids=str,
)
def test_flags_that_do_not_go_together(flags_of, tmp_path, flags, complaint):
    with pytest.raises((OptionError, CheckpointError), match=complaint):
        train(flags=flags_of(tmp_path / "out", **flags))


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_base(trained, make_checkpoint, tmp_path, bits):
    """QLoRA on the CPU; the adapter serves next to a 4-bit base, in masked layers, or merged into an 8-bit one."""
    pytest.importorskip("bitsandbytes")
    base = make_checkpoint(hidden_size=64, intermediate_size=128)  # the 4-bit CPU kernel wants multiples of 64
    out = trained(tmp_path / "out", **LORA, **SCHEDULER, bits=bits, bf16=True, model_name_or_path=base)
    model, processor = opened(out, base, load_4bit=bits == 4, load_8bit=bits == 8)
    found = answer(model, processor, latency_budget=0.75)
    assert found.logits.isfinite().all() and (found.report.masked_layers > 0) == (bits == 4)
    assert model.scheduler.mlp_head.weight.is_floating_point(), "the scheduler is never quantised"


def test_adapter_next_to_8_bit_weights_answers_as_merged_within_the_rounding(adaptive_adapter, tiny_checkpoint):
    """Its own weights are not rounded."""
    merged, processor = opened(adaptive_adapter, tiny_checkpoint)
    apart, _ = opened(adaptive_adapter, tiny_checkpoint, load_8bit=True, merge_lora=False)
    kinds = {name.rpartition(".")[2]: type(one).__name__ for name, one in apart.named_modules() if "layers.0." in name}
    assert kinds["base_layer"] == "Int8Linear" and kinds["default"] == "Linear"
    masked = answer(apart, processor, latency_budget=0.75)
    assert masked.report.masked_layers > 0, "adapted weights cannot be cut"
    found, expected = (answer(one, processor, latency_budget=1.0) for one in (apart, merged))
    assert 0 < (found.logits - expected.logits).norm() < 0.05 * expected.logits.norm()


def test_adapter_over_a_base_that_holds_its_vision_tower_opens(trained, root, tmp_path):
    """The bundled base has its tower's weights among its own."""
    base = root / "ada" / "checkpoints" / "shapes-base"
    flags = {"lora_enable": True, "lora_r": 2, "max_steps": 1, "model_max_length": 512}
    adapter = trained(tmp_path / "llava-lora", model_name_or_path=base, **flags)
    _, model, _, _ = load_pretrained_model(str(adapter), str(base), "llava-lora", device="cpu")
    held = load_file(base / "model.safetensors")
    name = "embeddings.patch_embedding.weight"
    (key,) = [key for key in held if key.endswith(name)]
    (weight,) = [value for key, value in model.get_vision_tower().state_dict().items() if key.endswith(name)]
    assert torch.equal(weight.to(held[key].dtype), held[key])
