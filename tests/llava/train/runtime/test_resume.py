"""Which checkpoint a run goes on from, and what DeepSpeed has to know of it."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from llava.errors import CheckpointError
from llava.train.runtime.checkpoint_folders import missing_parts, numbered_checkpoints, remove_old
from llava.train.runtime.resume import last_checkpoint, restore_param_group_settings


def write(folder, processes=0, universal=False):
    """A checkpoint as the trainer leaves it, with DeepSpeed's files of so many processes."""
    folder.mkdir(parents=True)
    step = int(folder.name.partition("-")[2])
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    ranks = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    for name in ("scheduler.pt", *ranks, *(() if processes else ("optimizer.pt",))):
        torch.save({"value": torch.ones(2)}, folder / name)
    if not processes:
        save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    if processes:
        (folder / "latest").write_text("global_step4")
        (folder / "global_step4").mkdir()
        for rank in range(processes):
            (folder / "global_step4" / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_text("state")
            (folder / "global_step4" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").write_text("state")
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


def test_the_last_complete_checkpoint_counts(args, tmp_path):
    assert last_checkpoint(args(deepspeed=None)) is None and numbered_checkpoints(tmp_path / "nowhere") == []
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-1000"):
        write(tmp_path / name)
    (tmp_path / "checkpoint-1000" / "trainer_state.json").unlink()  # as a killed save leaves it
    folders = numbered_checkpoints(tmp_path)
    assert [path.name for path in folders] == ["checkpoint-20", "checkpoint-100", "checkpoint-1000"]
    assert [missing_parts(path) for path in folders] == [[], [], ["trainer_state.json"]]
    assert last_checkpoint(args(deepspeed=None)) == str(tmp_path / "checkpoint-100")


def test_folders_with_other_names_are_passed_over(args, tmp_path):
    write(tmp_path / "checkpoint-4")
    copies = ["checkpoint-best", "checkpoint-", "checkpoint-9.tmp", "checkpoint-010", "checkpoint-1e9", "checkpoint--7"]
    for name in [*copies, "checkpoint-9 copy", "my-checkpoint-9", "checkpoint-٩", "tmp-checkpoint-8"]:
        shutil.copytree(tmp_path / "checkpoint-4", tmp_path / name)
    (tmp_path / "checkpoint-12").write_text("a file")
    assert numbered_checkpoints(tmp_path) == [tmp_path / "checkpoint-4"]
    assert last_checkpoint(args(deepspeed=None)) == str(tmp_path / "checkpoint-4")


CUT_SHORT = {
    "optimizer.pt": "optimizer.pt",
    "scheduler.pt": "scheduler.pt",
    "rng_state.pth": "rng_state.pth",
    "model.safetensors": "model.safetensors",
    "trainer_state.json": "trainer_state.json",
}


@pytest.mark.parametrize("how", ["missing", "empty", "cut short"])
@pytest.mark.parametrize("name", CUT_SHORT)
def test_a_checkpoint_that_lacks_a_file_is_passed_over_with_a_warning(args, tmp_path, caplog, name, how):
    for step in (4, 8):
        write(tmp_path / f"checkpoint-{step}")
    spoil(tmp_path / "checkpoint-8" / name, how)
    assert last_checkpoint(args(deepspeed=None)) == str(tmp_path / "checkpoint-4")
    assert f"checkpoint-8 is passed over: it lacks {CUT_SHORT[name]}" in caplog.text


def spoil(path, how):
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[: len(content) // 2] if how == "cut short" else b"")


def test_without_any_complete_checkpoint_a_run_is_refused(args, tmp_path):
    """As ``--save_only_model True`` leaves them."""
    for step in (4, 8):
        write(tmp_path / f"checkpoint-{step}")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (tmp_path / f"checkpoint-{step}" / name).unlink()
    lacks = r"checkpoint-8 cannot be .* lacks optimizer\.pt, scheduler\.pt, rng_state\.pth, as with --save_only_model"
    with pytest.raises(CheckpointError, match=lacks):
        last_checkpoint(args(deepspeed=None))


def test_a_first_save_that_was_killed_starts_the_run_anew(args, tmp_path):
    write(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
    assert last_checkpoint(args(deepspeed=None)) is None


def test_a_renamed_checkpoint_is_not_taken_for_a_later_one(args, tmp_path, caplog):
    write(tmp_path / "checkpoint-4")
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-900")
    assert last_checkpoint(args(deepspeed=None)) == str(tmp_path / "checkpoint-4")
    assert "trainer_state.json of step 900 (it is of step 4)" in caplog.text


@pytest.mark.parametrize(
    ("spoiled", "lacks"),
    [
        ("latest", "latest"),
        ("global_step4", "_optim_states.pt of each process"),
        ("global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "_optim_states.pt of each process"),
        ("global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt", "_model_states.pt of each process"),
        ("rng_state_1.pth", "rng_state_1.pth"),
        ("rng_state_0.pth", "rng_state_0.pth"),
        ("scheduler.pt", "scheduler.pt"),
    ],
)
def test_deepspeeds_state_is_complete_or_the_checkpoint_is_passed_over(args, tmp_path, caplog, spoiled, lacks):
    write(tmp_path / "checkpoint-4", processes=2)
    write(tmp_path / "checkpoint-8", processes=2)
    path = tmp_path / "checkpoint-8" / spoiled
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert last_checkpoint(args(processes=2)) == str(tmp_path / "checkpoint-4")
    assert "checkpoint-8 is passed over" in caplog.text and lacks in caplog.text


@pytest.mark.parametrize("block", ["scheduler", "optimizer"])
def test_a_schedule_that_deepspeed_keeps_needs_no_file(args, tmp_path, block):
    write(tmp_path / "checkpoint-4", processes=2)
    (tmp_path / "checkpoint-4" / "scheduler.pt").unlink()
    given = args(processes=2)
    given.hf_deepspeed_config.config[block] = {"type": "any"}
    assert last_checkpoint(given) == str(tmp_path / "checkpoint-4")


def test_random_state_of_several_processes_without_deepspeed(args, tmp_path, caplog):
    """A run of other numbers of processes resumes from it; a process's file that is missing is named."""
    write(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "rng_state.pth").unlink()
    for rank in (0, 1, 2):
        torch.save({}, tmp_path / "checkpoint-4" / f"rng_state_{rank}.pth")
    assert last_checkpoint(args(processes=1, deepspeed=None))
    (tmp_path / "checkpoint-4" / "rng_state_1.pth").unlink()
    with pytest.raises(CheckpointError, match=r"it lacks rng_state_1\.pth"):
        last_checkpoint(args(processes=3, deepspeed=None))


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(None, None, [1, 2, 3, 10]), (0, None, [1, 2, 3, 10]), (2, None, [3, 10]), (1, 2, [2, 10]), (3, 1, [1, 3, 10])],
)
def test_removal_of_old_checkpoints_leaves_copies_alone(tmp_path, limit, best, left):
    copies = ["checkpoint-best", "checkpoint-1.tmp", "checkpoint-2-keep", "checkpoint-007"]
    for name in [*copies, *(f"checkpoint-{step}" for step in (1, 2, 3, 10))]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").touch()
    remove_old(tmp_path / "checkpoint-10", limit, best and str(tmp_path / f"checkpoint-{best}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*copies, *(f"checkpoint-{s}" for s in left)])


@pytest.mark.parametrize(
    ("limit", "left"), [(1, [6]), (2, [4, 6]), (3, [2, 4, 6]), (4, [2, 4, 6, 8]), (None, [2, 3, 4, 6, 8])]
)
def test_removal_keeps_what_was_just_saved_and_takes_unusable_checkpoints_first(args, tmp_path, limit, left):
    """A run that was killed while it saved its steps 3 and 8, and resumed from step 4 with other ``--save_steps``."""
    for step in (2, 3, 4, 6, 8):
        write(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-8" / "optimizer.pt").unlink()
    remove_old(tmp_path / "checkpoint-6", limit)
    assert [int(path.name.partition("-")[2]) for path in numbered_checkpoints(tmp_path)] == left
    assert last_checkpoint(args(deepspeed=None)) == str(tmp_path / "checkpoint-6")


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
