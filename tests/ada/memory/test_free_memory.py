"""What a device says is free."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from ada.memory.free_memory import free_bytes


def test_cpu_says_what_the_system_can_give(monkeypatch) -> None:
    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123, free=7))
    assert free_bytes(torch.device("cpu")) == 123, "what the system keeps of files counts as free"


def test_gpu_counts_what_torch_keeps_of_freed_tensors(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert free_bytes("cuda:1") == 1300


def test_kind_that_cannot_say_is_none() -> None:
    assert free_bytes("meta") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_has_less_once_a_tensor_is_there_and_as_much_once_it_is_freed() -> None:
    before = free_bytes("cuda")
    tensor = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    assert before - free_bytes("cuda") >= tensor.nbytes
    del tensor
    assert before - free_bytes("cuda") < 16 << 20
