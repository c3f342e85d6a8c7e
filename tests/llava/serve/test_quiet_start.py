"""Programs print nothing at their start that the user need not know."""

import json
import os
import shutil
import subprocess
import sys

import pytest

LIMITS_OF_VICUNA = {"max_length": 4096, "temperature": 0.9, "top_p": 0.6}


@pytest.fixture
def run_program(root):
    """``run_program(module, *flags, typed="")``: a program in its own process, at its end."""

    def run(module: str, *flags: object, typed: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", module, *map(str, flags)]
        return subprocess.run(command, cwd=root, env=environment, input=typed, capture_output=True, text=True)

    return run


def test_cli_without_arguments_prints_the_answer_and_nothing_on_stderr(run_program) -> None:
    ran = run_program("llava.serve.cli")
    assert (ran.returncode, ran.stderr) == (0, "")
    question, answer, report = ran.stdout.splitlines()
    assert question.startswith("USER: ") and answer.startswith("ASSISTANT: ") and report.startswith("[budget none")


def test_cli_checkpoint_with_its_own_generation_limits_prints_nothing_on_stderr(
    run_program, adaptive_checkpoint, tmp_path
) -> None:
    folder = tmp_path / "tiny-llava"
    shutil.copytree(adaptive_checkpoint, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **LIMITS_OF_VICUNA}))
    ran = run_program("llava.serve.cli", "--model-path", folder, "--max-new-tokens", 3, typed="w5\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("ASSISTANT: ")
