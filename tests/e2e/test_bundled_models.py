"""The models that come with the repository: complete, movable, small, and they answer."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from fixtures.marks import slow_except

from ada.frontier.fingerprint import checkpoint_fingerprint
from playground.smol.base import NAME

MEGABYTE = 1e6
NAMES = ("shapes-base", "shapes-H", "shapes-L")


@pytest.fixture(scope="session")
def bundled(root: Path) -> Path:
    return root / "ada" / "checkpoints"


def test_they_are_small(bundled: Path) -> None:
    for pattern, megabytes in (("shapes*/**/*", 30), ("smol*/**/*", 15)):
        sizes = [path.stat().st_size for path in bundled.glob(pattern) if path.is_file()]
        assert max(sizes) <= 15 * MEGABYTE and sum(sizes) <= megabytes * MEGABYTE


def test_smol_names_what_it_was_trained_on_and_has_its_tower(bundled: Path) -> None:
    adapter, config = (
        json.loads((bundled / "smol" / name).read_text()) for name in ("adapter_config.json", "config.json")
    )
    assert (adapter["base_model_name_or_path"], config["mm_vision_tower"]) == (NAME, "vision_tower")
    assert (bundled / "smol" / "vision_tower" / "model.safetensors").is_file()


def test_smols_budgets_name_it_and_know_their_frontier(bundled: Path) -> None:
    for path in bundled.glob("smol-*"):
        kind = path.name[-1]
        adapter, config = (json.loads((path / name).read_text()) for name in ("adapter_config.json", "config.json"))
        assert (adapter["base_model_name_or_path"], config["mm_vision_tower"]) == ("../smol", "smol/vision_tower")
        assert config["scheduler_type"] == kind and (path / "neuron_order.safetensors").is_file() == (kind == "H")
        fingerprint = json.loads((path / "frontier.json").read_text())["checkpoint"]
        assert fingerprint == checkpoint_fingerprint(path), "its frontier is of other weights"


@pytest.mark.network
def test_smol_answers_once_its_language_model_is_fetched(root: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "scripts/demo.sh", "--device", "cpu"],
        cwd=root,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert "assistant: green" in ran.stdout
    assert "[budget 0.5, granted " in ran.stdout and "image tokens " in ran.stdout and "/144, " in ran.stdout


@pytest.mark.parametrize("name", NAMES)
def test_they_name_no_place_of_the_machine_that_made_them(bundled: Path, name: str) -> None:
    for path in (bundled / name).rglob("*config.json"):
        values = json.loads(path.read_text(encoding="utf-8")).values()
        assert not [value for value in values if isinstance(value, str) and Path(value).is_absolute()], path
    assert json.loads((bundled / name / "config.json").read_text())["mm_vision_tower"] == "vision_tower"


@pytest.mark.parametrize(("name", "flags"), [("shapes-base", []), ("shapes-H", ["0.6"]), ("shapes-L", ["0.6"])])
def test_moved_elsewhere_they_read_and_count(bundled: Path, tmp_path: Path, root: Path, name: str, flags) -> None:
    moved = tmp_path / "anywhere"
    shutil.copytree(bundled / name, moved)
    image_file = root / "playground" / "shapes" / "demo.png"
    words = ["--model-path", str(moved), "--image-file", str(image_file), "--device", "cpu"]
    words += [word for budget in flags for word in ("--latency-budget", budget)]
    asked = "What word is written in the picture?\nAnswer the question using a single word or phrase."
    ran = subprocess.run(
        [sys.executable, "-m", "llava.eval.run_llava", *words, "--query", asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[0] == "sun"


def test_the_demo_answers_and_reports(root: Path) -> None:
    """The main job, as ``scripts/demo.sh`` runs it once it has installed."""
    ran = subprocess.run(
        [sys.executable, "-m", "llava.serve.cli", "--latency-budget", "0.5"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    answer, report = ran.stdout.strip().splitlines()[-2:]
    assert answer == "ASSISTANT: green", "as the triangle is"
    assert report.startswith("[budget 0.5, granted 0.75 | image tokens 18/36, share 0.487 | layers ")
    assert ", heads 60/80, " in report


@pytest.mark.parametrize(
    ("name", "bits"),
    slow_except(product(["shapes-H", "shapes-L"], ["4bit", "8bit"]), ("shapes-H", "4bit"), ("shapes-H", "8bit")),
)
def test_quantised_they_answer_and_say_what_saves_no_time(root: Path, bundled: Path, name, bits) -> None:
    """Of sizes that the library's packed 4-bit kernel for CPUs refuses; 8-bit weights are cut as others are."""
    image_file = root / "playground" / "shapes" / "demo.png"
    words = ["--model-path", str(bundled / name), "--image-file", str(image_file), "--latency-budget", "0.6"]
    ran = subprocess.run(
        [sys.executable, "-m", "llava.serve.cli", *words, "--device", "cpu", f"--load-{bits}"],
        input="What word is written in the picture?\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    answer, report = ran.stdout.strip().splitlines()[-2:]
    assert answer.endswith("ASSISTANT: sun")
    assert ("H saves no time" in report) == ((name, bits) == ("shapes-H", "4bit"))
