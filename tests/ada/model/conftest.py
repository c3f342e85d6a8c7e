"""Adaptive models of both kinds, and one way of asking them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

IMAGE = -200
PROMPT = [1, 17, 33, IMAGE, 60, 70, 31, 7]


@pytest.fixture(scope="session")
def ids() -> Callable[..., torch.Tensor]:
    """``ids(row, ...)``: token ids (B, t); of the usual prompt, with one image, by default."""
    return lambda *rows: torch.tensor(rows or [PROMPT])


@pytest.fixture(scope="session")
def ask() -> Callable[..., Any]:
    """``ask(model, prompt, count=5, **keywords)``: greedy generation with everything that it can return."""

    def make(model: Any, prompt: torch.Tensor, count: int = 5, **kwargs: Any) -> Any:
        settings = {"max_new_tokens": count, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        return model.generate(prompt, **{**settings, **kwargs})

    return make


@pytest.fixture(scope="session")
def close() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Equal but for the order of float32 sums."""

    def check(ours: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(ours, expected, atol=2e-4 * expected.abs().max().item(), rtol=1e-4)

    return check


@pytest.fixture(scope="session")
def model_h(make_llava):
    return make_llava("H")


@pytest.fixture(scope="session")
def model_l(make_llava):
    return make_llava("L")


@pytest.fixture(params=["H", "L"])
def model(request, model_h, model_l):
    return model_h if request.param == "H" else model_l
