"""Bad input: a message that names the value and what was expected, a non-zero exit, and no answer."""

import io
import json
import pickle
import shutil
import struct
import zlib

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

BUDGETS = ("0", "1.5", "nan", "fast", "-0.5", "inf", "", "0%", "120%")


@pytest.mark.parametrize("budget", BUDGETS)
def test_budgets(run_cli, run_once, adaptive_checkpoint, image_file, budget: str) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, f"--latency-budget={budget}")
    for ran in (run_cli(*flags, typed=["w5"]), run_once(*flags, "--query", "w5")):
        assert ran.code == 2
        assert "--latency-budget" in ran.err and repr(budget) in ran.err and "(0, 1]" in ran.err
        assert "ASSISTANT" not in ran.out


def test_a_strict_budget_below_the_least_names_the_least(run_once, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--query", "w5", "--max_new_tokens", 2)
    loose = run_once(*flags, "--latency-budget", "0.2", "--report", "json")
    strict = run_once(*flags, "--latency-budget", "0.2", "--strict-latency-budget")
    assert loose.code == 0 and not json.loads(loose.out.splitlines()[-1])["budget_met"]
    assert strict.code == 2 and "0.2" in strict.err and "0.5" in strict.err


def png_of(pixels: int) -> bytes:
    """A tiny PNG file whose header promises ``pixels`` pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "png")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", pixels // 10_000, 10_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize("fault", ["missing", "truncated", "text", "empty", "folder", "huge"])
def test_images(run_cli, run_once, adaptive_checkpoint, image_file, tmp_path, fault: str) -> None:
    path = tmp_path / "bad.png"
    full = image_file.read_bytes()
    contents = {
        "truncated": full[: len(full) // 2],
        "text": b"not a picture",
        "empty": b"",
        "huge": png_of(100_000_000),
    }
    if fault == "folder":
        path.mkdir()
    elif fault != "missing":
        path.write_bytes(contents[fault])
    flags = ("--model-path", adaptive_checkpoint, "--image-file", path)
    for ran in (run_cli(*flags, typed=["w5"]), run_once(*flags, "--query", "w5")):
        assert ran.code == 2 and str(path) in ran.err
        assert "ASSISTANT" not in ran.out and "Traceback" not in ran.err


class Malicious:
    """A pickle that would write a file when read."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def spoil(folder, fault: str, witness) -> str:
    """Put a fault into a checkpoint; what the message must name."""
    weights = folder / "model.safetensors"
    state = load_file(weights)
    name = "model.layers.1.mlp.down_proj.weight"
    if fault == "missing key":
        del state[name]
    elif fault == "wrong shape":
        state[name] = state[name][:, :-1].contiguous()
    elif fault == "extra key":
        name = "model.layers.1.mlp.side_proj.weight"
        state[name] = torch.zeros(2, 2)
    elif fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        return "model.safetensors"
    elif fault == "pickle":
        weights.unlink()
        with open(folder / "pytorch_model.bin", "wb") as file:
            pickle.dump({name: Malicious(witness)}, file, protocol=2)
        return "pytorch_model.bin"
    elif fault == "no config":
        (folder / "config.json").unlink()
        return "config.json"
    save_file(state, weights, {"format": "pt"})
    return name


FAULTS = ("missing key", "wrong shape", "extra key", "truncated", "pickle", "no config")


@pytest.mark.parametrize("fault", FAULTS)
def test_checkpoints(run_cli, adaptive_checkpoint, image_file, tmp_path, fault: str) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(adaptive_checkpoint, folder)
    witness = tmp_path / "witness"
    named = spoil(folder, fault, witness)
    ran = run_cli("--model-path", folder, "--image-file", image_file, typed=["w5"])
    assert ran.code == 2 and named in ran.err, ran.err
    assert "ASSISTANT" not in ran.out and "Traceback" not in ran.err
    assert not witness.exists(), "code in a pickle never runs"


def test_a_plain_llava_with_a_budget_names_the_two_ways_on(run_cli, tiny_checkpoint, image_file) -> None:
    flags = (
        "--model-path",
        tiny_checkpoint,
        "--image-file",
        image_file,
        "--latency-budget",
        "0.5",
        "--max-new-tokens",
        3,
    )
    ran = run_cli(*flags, typed=["w5"])
    assert ran.code == 2
    assert "finetune_ada_heads.sh" in ran.err and "--planner even|last|random" in ran.err
    untrained = run_cli(*flags, "--planner", "even", typed=["w5"])
    assert untrained.code == 0 and "granted 0.5" in untrained.out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--conv-mode", "nope"), "nope"),
        (("--temperature", "-1"), "--temperature"),
        (("--max-new-tokens", "0"), "--max-new-tokens"),
        (("--device", "abacus"), "abacus"),
        (("--model-path", "nowhere/at/all"), "nowhere/at/all"),
    ],
)
def test_other_flags(run_cli, adaptive_checkpoint, image_file, monkeypatch, flags, named: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = () if "--model-path" in flags else ("--model-path", adaptive_checkpoint)
    ran = run_cli(*before, *flags, "--image-file", image_file, typed=["w5"])
    assert ran.code == 2 and named in ran.err and "Traceback" not in ran.err
