"""Where a model goes, and in which dtype."""

import json
from types import SimpleNamespace

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.builder import load_pretrained_model
from llava.model.placement import as_stored, fitting_dtype, placing, usable_device

QLORA = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}  # and more


def test_usable_device_without_gpu_is_the_cpu(monkeypatch, caplog):
    """Upstream's default device is cuda."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("cuda") == "cpu"
    assert "cuda is not available" in caplog.text


@pytest.fixture
def gpu_of(monkeypatch):
    """``gpu_of(major)``: torch sees a GPU of this compute capability, which takes bfloat16 tensors, as all do."""

    def make(major):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)

    return make


@pytest.mark.parametrize(("major", "expected"), [(7, torch.float16), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_fitting_dtype_is_bfloat16_only_where_a_gpu_multiplies_it(gpu_of, major, expected):
    """A V100 and a T4 (7.0 and 7.5) emulate it."""
    gpu_of(major)
    assert fitting_dtype("cuda", {"torch_dtype": "bfloat16"}, []) == expected
    assert fitting_dtype("cuda", {"torch_dtype": "float16"}, []) == torch.float16


def test_fitting_dtype_depends_on_device_and_checkpoint(checkpoint, monkeypatch, gpu_of):
    gpu_of(8)
    files = [checkpoint / "model.safetensors"]
    for device, saved, expected in (
        ("cuda", "float16", torch.float16),
        ("cuda:1", "bfloat16", torch.bfloat16),
        ("cuda", "float32", torch.float16),
        ("mps", "bfloat16", torch.float16),
        ("cpu", "bfloat16", torch.float32),
    ):
        assert fitting_dtype(device, {"torch_dtype": saved}, files) == expected
    monkeypatch.setattr("llava.model.placement.MEDIUM_BYTES", 10)
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("llava.model.placement.multiplies_bfloat16", lambda native=native: native)
        assert fitting_dtype("cpu", {"dtype": "bfloat16"}, files) == expected
        assert fitting_dtype("cpu", {"dtype": "float16"}, files) == torch.float32, "its digits would be lost"
    monkeypatch.setattr("llava.model.placement.LARGE_BYTES", 10)
    assert fitting_dtype("cpu", {"dtype": "float16"}, files) == torch.bfloat16
    assert fitting_dtype("cpu", {"dtype": "float32"}, files) == torch.float32


def test_weights_are_read_where_they_go_but_8_bits_are_made_first():
    assert placing("cuda", "auto") == placing("cuda", "auto", load_4bit=True) == {"device_map": "auto"}
    assert placing("cuda", "auto", load_8bit=True) == placing("cuda:1", "auto", load_8bit=True) == {}
    assert placing("cuda", "balanced", load_8bit=True) == {"device_map": "balanced"}
    assert placing("cpu", "auto") == placing("cuda", None) == {}
    assert placing("cpu", "auto", load_4bit=True) == {"device_map": {"": "cpu"}}


@pytest.mark.parametrize("found", [QLORA, {"load_in_8bit": True}, None, {}], ids=str)
def test_quantisation_that_the_weights_do_not_have_is_passed_over(checkpoint, model, pixels, found):
    """Upstream's QLoRA, and its merged checkpoints, leave that of their base in config.json."""
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": found}))
    _, opened, _, _ = load_pretrained_model(str(checkpoint), None, "any", device="cpu")
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
    with torch.no_grad():
        assert torch.equal(opened(ids, images=pixels[:1]).logits, model(ids, images=pixels[:1]).logits)
    assert getattr(opened.config, "quantization_config", None) is None


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (QLORA, ["model.layers.0.mlp.up_proj.weight.absmax"]),
        ({"load_in_8bit": True}, ["model.layers.0.mlp.up_proj.SCB"]),
        ({"quant_method": "gptq", "bits": 4}, ["model.layers.0.mlp.up_proj.weight"]),
    ],
    ids=str,
)
def test_quantisation_that_the_weights_have_is_kept(found, names):
    fields = {"quantization_config": found}
    assert as_stored(fields, lambda: names) is fields
