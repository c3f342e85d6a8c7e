"""Which checkpoint a run goes on from, and what DeepSpeed has to know of it."""

from types import SimpleNamespace

import pytest
import torch

from llava.errors import CheckpointError
from llava.train.runtime.resume import complete_checkpoints, last_checkpoint, restore_param_group_settings


def write(folder, processes=0, universal=False):
    """A checkpoint as the trainer leaves it, with DeepSpeed's files of so many processes."""
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").touch()
    if processes:
        (folder / "latest").write_text("global_step4")
        (folder / "global_step4").mkdir()
        for rank in range(processes):
            (folder / "global_step4" / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
            (folder / "global_step4" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").touch()
    if universal:
        (folder / "latest_universal").write_text("global_step4_universal")


@pytest.fixture
def args(tmp_path):
    def make(processes=1, deepspeed="zero2.json"):
        config = SimpleNamespace(config={"checkpoint": {"tag_validation": "Warn"}})
        return SimpleNamespace(
            output_dir=str(tmp_path), deepspeed=deepspeed, world_size=processes, hf_deepspeed_config=config
        )

    return make


def test_the_last_complete_checkpoint_counts(tmp_path):
    assert complete_checkpoints(str(tmp_path)) == []
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-1000"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-1000":  # as a killed save leaves it
            (tmp_path / name / "trainer_state.json").touch()
    assert [path.name for path in complete_checkpoints(str(tmp_path))] == ["checkpoint-20", "checkpoint-100"]
    assert complete_checkpoints(str(tmp_path / "nowhere")) == []


def test_as_many_processes_as_before(args, tmp_path):
    assert last_checkpoint(args()) is None
    write(tmp_path / "checkpoint-4", processes=2)
    given = args(processes=2)
    assert last_checkpoint(given) == str(tmp_path / "checkpoint-4")
    assert "load_universal" not in given.hf_deepspeed_config.config["checkpoint"]


def test_another_number_of_processes(args, tmp_path):
    write(tmp_path / "checkpoint-4", processes=2)
    with pytest.raises(CheckpointError, match=r"written by 2 .* this run has 3") as raised:
        last_checkpoint(args(processes=3))
    state = tmp_path / "checkpoint-4" / "global_step4"
    command = f"ds_to_universal --inject_missing_state --input_folder {state} --output_folder {state}_universal"
    assert str(raised.value).endswith(command)


def test_the_universal_form_is_read_where_it_is_needed(args, tmp_path):
    write(tmp_path / "checkpoint-4", processes=2, universal=True)
    for processes, wanted in ((2, False), (1, True), (4, True)):
        given = args(processes)
        assert last_checkpoint(given)
        config = given.hf_deepspeed_config.config["checkpoint"]
        assert config.get("load_universal", False) is wanted
        assert config["tag_validation"] == "Warn"


@pytest.mark.parametrize("writers", [0, 2])
def test_with_and_without_deepspeed(args, tmp_path, writers):
    write(tmp_path / "checkpoint-4", processes=writers)
    other = args(deepspeed=None if writers else "zero2.json")
    with pytest.raises(CheckpointError, match=r"was written with(out)? DeepSpeed"):
        last_checkpoint(other)
    same = args(processes=2, deepspeed="zero2.json" if writers else None)
    assert last_checkpoint(same) == str(tmp_path / "checkpoint-4")


def test_groups_that_came_back_as_one():
    """As DeepSpeed leaves an optimizer: one decay, one rate, one count of steps for both groups."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], lr=0.1)
    count = torch.tensor(5.0)
    for weight in weights:
        optimizer.state[weight] = {"step": count, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.ones(2)}
        weight.grad = torch.ones(2)
    restore_param_group_settings(optimizer, [0.5, 0.0], [0.1, 0.2])
    assert [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups] == [(0.5, 0.1), (0.0, 0.2)]
    optimizer.step()
    assert [optimizer.state[weight]["step"].item() for weight in weights] == [6, 6]
