"""An output folder's checkpoints are resumed by the run that wrote them, and by no other."""

import json

import pytest

from llava.errors import CheckpointError

STOPPED = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}


@pytest.fixture(scope="module")
def stopped(trained, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run") / "out", **STOPPED)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"image_token_dropout": 0.5}, "--image_token_dropout None (now 0.5)"),
        ({"lora_enable": True}, "--lora_enable False (now True)"),
        ({"data": "other.json"}, "--data_path "),
    ],
)
def test_another_run_is_refused(trained, stopped, changed, named):
    before = sorted(path.name for path in stopped.iterdir())
    with pytest.raises(CheckpointError) as refused:
        trained(stopped, **STOPPED | {"max_steps": 2} | changed, check_data=False)
    assert named in str(refused.value) and "--output_dir" in str(refused.value)
    assert sorted(path.name for path in stopped.iterdir()) == before


def test_more_steps_and_another_rate_go_on(trained, stopped):
    trained(stopped, **STOPPED | {"max_steps": 2, "learning_rate": 1e-5})
    assert json.loads((stopped / "trainer_state.json").read_text())["global_step"] == 2


def test_folder_without_the_file_is_taken_as_it_is(trained, tmp_path):
    out = trained(tmp_path / "out", **STOPPED)
    (out / "started_with.json").unlink()
    trained(out, **STOPPED | {"max_steps": 2, "image_token_dropout": 0.5})
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 2
