"""The measured bandwidth of a device's memory."""

import pytest
import torch

from ada.bench.decode import bandwidth


def test_higher_median_of_reading_and_copying_counts(monkeypatch) -> None:
    seconds = iter([9.0, 9.0, 1.0, 1.0, 2.0, 8.0, 4.0, 4.0])  # the first round warms up: reading, copying
    monkeypatch.setattr(bandwidth, "seconds_of", lambda way, device: next(seconds))
    read, copied = 400 / 2.0, 800 / 4.0
    found = bandwidth.memory_bandwidth(torch.device("cpu"), rounds=3, num_bytes=400)
    assert found == max(read, copied) == 200


def test_bandwidth_of_this_device_is_positive() -> None:
    assert bandwidth.memory_bandwidth(torch.device("cpu"), rounds=1, num_bytes=1 << 16) > 0


@pytest.mark.gpu
def test_bandwidth_of_a_gpu_is_above_that_of_its_bus() -> None:
    assert bandwidth.memory_bandwidth(torch.device("cuda"), rounds=3, num_bytes=1 << 28) > 50e9
