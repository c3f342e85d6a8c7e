"""Where a model goes, and in which dtype."""

import torch

from llava.model.placement import fitting_dtype, usable_device


def test_usable_device_without_gpu_is_the_cpu(monkeypatch, caplog):
    """Upstream's default device is cuda."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("cuda") == "cpu"
    assert "cuda is not available" in caplog.text


def test_fitting_dtype_depends_on_device_and_checkpoint(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    files = [checkpoint / "model.safetensors"]
    for device, saved, expected in (
        ("cuda", "float16", torch.float16),
        ("cuda:1", "bfloat16", torch.bfloat16),
        ("cuda", "float32", torch.float16),
        ("mps", "bfloat16", torch.float16),
        ("cpu", "bfloat16", torch.float32),
    ):
        assert fitting_dtype(device, {"torch_dtype": saved}, files) == expected
    monkeypatch.setattr("llava.model.placement.LARGE_BYTES", 10)
    assert fitting_dtype("cpu", {"dtype": "float16"}, files) == torch.bfloat16
    assert fitting_dtype("cpu", {"dtype": "float32"}, files) == torch.float32
