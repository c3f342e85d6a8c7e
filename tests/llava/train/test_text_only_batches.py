"""With DeepSpeed every process must run the same modules, also for a batch without images."""

import pytest
import torch

from llava.train.train import make_trainer, parse_arguments

RUNS = {"whole": {}, "heads": {"scheduler_type": "H", "scheduler_rank": 2}, "layers": {"scheduler_type": "L"}}


@pytest.fixture
def passes(flags_of, tmp_path):
    """``passes(rows, **flags)``: one step's modules in the order of their calls, and every gradient by name."""

    def run(with_images, **flags):
        trainer = make_trainer(parse_arguments(flags_of(tmp_path / "out", gradient_checkpointing=True, **flags)))
        data = trainer.train_dataset
        indices = [i for i, record in enumerate(data.list_data_dict) if ("image" in record) == with_images][:2]
        batch = trainer.data_collator([data[index] for index in indices])
        called = []
        for name, module in trainer.model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        added = trainer.policy.inputs(trainer.args.seed, 0, 0.0, 0, len(batch["input_ids"]))  # budgets, as in a step
        trainer.compute_loss(trainer.model.train(), {**batch, **added}).backward()
        gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
        return called, gradients

    return run


@pytest.mark.parametrize("kind", RUNS)
def test_text_only_batch_runs_the_modules_of_a_batch_with_images(passes, kind):
    with_images, learned = passes(True, **RUNS[kind])
    text_only, reached = passes(False, **RUNS[kind])
    assert text_only == with_images
    assert any("vision_tower" in name for name in text_only) and any("mm_projector" in name for name in text_only)
    assert all(gradient is not None for gradient in reached.values()), "none may be missing"
    assert reached.keys() == learned.keys()
    projector = {name for name in reached if "mm_projector" in name}
    assert projector
    assert all(torch.equal(reached[name], torch.zeros_like(reached[name])) for name in projector)
    assert all(learned[name].any() for name in projector)


@pytest.mark.parametrize("kind", ["H", "L"])
def test_minimum_budget_gives_every_parameter_a_gradient(passes, kind):
    """No unit is granted: the scheduler's gradient is 0, and not missing."""
    flags = {"scheduler_type": kind, "scheduler_rank": 2, "num_prefix_layers": 1, "latency_budget": "0.5"}
    _, reached = passes(True, **flags)
    assert all(gradient is not None for gradient in reached.values())
    assert not reached["scheduler.mlp_head.weight"].any()
