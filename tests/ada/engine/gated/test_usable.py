"""What speaks against the gated kernels, by device and by decoder."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fixtures.gated_checks import ByteLinear
from fixtures.masked_decoder import Slots, make_decoder

from ada.engine.gated import usable
from ada.engine.gated.usable import gated_step, reason_against_decoder, reason_against_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def _triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton looks installed, whether it is or not, and finds a GPU and a compiler."""
    monkeypatch.setattr(usable.importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=SimpleNamespace(active=1)))
    usable._reason_against_compiling.cache_clear()
    yield
    usable._reason_against_compiling.cache_clear()


def test_missing_triton_is_the_reason(monkeypatch) -> None:
    monkeypatch.setattr(usable.importlib.util, "find_spec", lambda name: None)
    assert reason_against_device(CUDA) == "Triton is not installed"


@pytest.mark.usefixtures("_triton")
def test_cpu_needs_the_interpreter(monkeypatch) -> None:
    assert "need a CUDA device" in reason_against_device(CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert reason_against_device(CPU) is None
    assert "need a CUDA device, not mps" in reason_against_device(torch.device("mps"))


@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize(
    ("capability", "reason"), [((7, 5), "7.5; the kernels need 8.0"), ((8, 0), None), ((9, 0), None)]
)
def test_old_gpu_is_a_reason(monkeypatch, capability, reason) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = reason_against_device(CUDA)
    assert found is None if reason is None else found.endswith(reason)


@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler"), subprocess.CalledProcessError(1, "gcc"), OSError("no cuda.h")]
)
def test_machine_without_a_compiler_is_a_reason(monkeypatch, error, caplog) -> None:
    class Driver:
        @property
        def active(self):
            raise error

    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=Driver()))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for _ in range(2):
        assert reason_against_device(CUDA) == f"Triton cannot compile: {error}"
    assert len(caplog.records) == 1, "one warning a process"


@pytest.mark.parametrize("shapes", [{}, {"kv_heads": 2}, {"bias": True}, {"family": "qwen2"}])
def test_decoders_of_llamas_layout_have_nothing_against_them(shapes) -> None:
    assert reason_against_decoder(make_decoder(**shapes)) is None


def changed_activation(model) -> None:
    model.config.hidden_act = "gelu"


def changed_weight(model) -> None:
    model.model.layers[2].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(45, 32, dtype=torch.uint8), False)


def changed_adapter(model) -> None:
    class Adapted(torch.nn.Linear):
        pass

    model.model.layers[0].self_attn.v_proj = Adapted(32, 32)


def changed_bytes(model) -> None:
    model.model.layers[0].mlp.down_proj = ByteLinear(model.model.layers[0].mlp.down_proj)
    model.model.layers[0].mlp.down_proj.scale = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_activation, "activation is 'gelu'"),
        (changed_weight, "neither floats nor 8-bit"),
        (changed_adapter, "neither floats"),
        (changed_bytes, "neither floats nor 8-bit"),
    ],
)
def test_decoder_that_the_kernels_would_get_wrong_is_refused(change, reason) -> None:
    model = make_decoder()
    change(model)
    assert reason in reason_against_decoder(model)


def test_bytes_with_scales_can_be_read() -> None:
    model = make_decoder()
    model.model.layers[0].mlp.down_proj = ByteLinear(model.model.layers[0].mlp.down_proj)
    assert reason_against_decoder(model) is None


@pytest.mark.usefixtures("_triton")
def test_cpu_gets_the_torch_step_even_where_the_interpreter_runs(monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model = make_decoder()
    assert gated_step(model, Slots.make(model, 2)) is None


@pytest.mark.parametrize("module", ["usable", "device_plan", "row_counts", "tiling", "shapes"])
def test_module_without_kernels_needs_no_triton(monkeypatch, module) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it raises ImportError
    spec = importlib.util.find_spec(f"ada.engine.gated.{module}")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
