"""One model on one device: what a CUDA GPU does must be what a CPU does.

Each check runs on the CPU among the unit tests, so that it is known to work, and on a GPU with
``bash scripts/test.sh gpu``.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from llava.token_clock import TokenClock

IMAGE = -200  # the image tag's id
PROMPT = torch.tensor([[1, IMAGE, 5, 6, 7, 8, 9, 10, 11, 12]])
NEW_TOKENS = 6
BUDGETS = (0.5, 0.7, 0.85, 1.0)
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device; float32 products are exact to float32 on it, not rounded to TF32."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by default convolutions are rounded
    yield torch.device(request.param)
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(params=["H", "L"])
def model(request: pytest.FixtureRequest, make_llava):
    """A small adaptive LLaVA on the CPU, float32."""
    return make_llava(request.param)


def moved(model, device: torch.device, dtype: torch.dtype = torch.float32):
    """A copy of ``model`` on a device."""
    return copy.deepcopy(model).to(device=device, dtype=dtype)


def generate(model, pixels: torch.Tensor, budget, prompt: torch.Tensor = PROMPT):
    """Generate greedily from the prompt with the first image of ``pixels`` for each row."""
    images = pixels[:1].repeat(len(prompt), 1, 1, 1).to(device=model.device, dtype=model.dtype)
    return model.generate(
        prompt.to(model.device),
        images=images,
        latency_budget=budget,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )


def first_logits(output) -> torch.Tensor:
    """The first token's logits (B, V), float32 on the CPU."""
    return output.logits[0].float().cpu()


def assert_close_for_dtype(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Compare logits that were summed in another order: to a share of the largest logit, by the dtype's precision."""
    share = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]  # about 6 to 800 roundings
    assert (actual - expected).abs().max() <= share * expected.abs().max()


def test_token_clock_stamps_when_the_device_has_finished(device: torch.device) -> None:
    clock = TokenClock(None)
    x = torch.randn(512, 512, device=device)
    for _ in range(200):  # a GPU has only queued these when Python goes on
        x = torch.nn.functional.normalize(x @ x)
    clock.tick(device)
    assert device.type == "cpu" or torch.cuda.current_stream(device).query()
    clock.tick(device)
    assert clock.start < clock.stamps[0] <= clock.stamps[1]


@pytest.mark.parametrize("budget", BUDGETS)
def test_generation_in_float32_equals_the_cpu(model, pixels, device: torch.device, budget: float) -> None:
    expected = generate(model, pixels, budget)
    actual = generate(moved(model, device), pixels, budget)
    assert actual.execution_plan == expected.execution_plan
    assert_close_for_dtype(first_logits(actual), first_logits(expected), torch.float32)
    assert torch.equal(actual.sequences.cpu(), expected.sequences)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_narrow_layers_equal_masked_layers(model, pixels, device: torch.device, dtype: torch.dtype) -> None:
    narrow = moved(model, device, dtype)
    masked = moved(model, device, dtype)
    masked.narrow_cache = None
    for budget in BUDGETS:
        cut, scaled = generate(narrow, pixels, budget), generate(masked, pixels, budget)
        assert cut.execution_plan == scaled.execution_plan
        assert_close_for_dtype(first_logits(cut), first_logits(scaled), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_warm_plan_cache_equals_cold_plan_cache(model, pixels, device: torch.device, dtype: torch.dtype) -> None:
    on_device = moved(model, device, dtype)
    cold, warm = (generate(on_device, pixels, 0.6) for _ in range(2))
    assert torch.equal(first_logits(cold), first_logits(warm))
    assert torch.equal(cold.sequences, warm.sequences)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
def test_half_precision_generates_under_budgets(make_llava, pixels, device, dtype: torch.dtype, attention: str) -> None:
    if attention == "flash_attention_2" and (device.type == "cpu" or not is_flash_attn_2_available()):
        pytest.skip("flash attention needs a CUDA device and the package flash-attn")
    on_device = moved(make_llava("H", attention=attention, dtype=dtype), device, dtype)
    for budget in BUDGETS:
        output = generate(on_device, pixels, budget)
        assert output.logits[0].device.type == device.type
        assert torch.isfinite(first_logits(output)).all()
        assert output.sequences.shape[1] == NEW_TOKENS


@pytest.mark.parametrize("dtype", HALVES)
def test_granted_units_do_not_depend_on_the_dtype(model, device: torch.device, dtype: torch.dtype) -> None:
    budgets = [share / 100 for share in range(1, 101)]
    expected = model.grant(budgets, len(budgets))
    assert torch.equal(moved(model, device, dtype).grant(budgets, len(budgets)).cpu(), expected)


def test_rows_with_different_budgets_equal_rows_alone(model, pixels, device: torch.device) -> None:
    on_device = moved(model, device)
    rows = generate(on_device, pixels, list(BUDGETS), PROMPT.repeat(len(BUDGETS), 1))
    for row, budget in enumerate(BUDGETS):
        alone = generate(on_device, pixels, budget)
        assert rows.execution_plan[row] == alone.execution_plan
        assert_close_for_dtype(first_logits(rows)[row : row + 1], first_logits(alone), torch.float32)


def test_gradients_equal_the_cpu(make_llava, pixels, device: torch.device) -> None:
    model = make_llava("H")
    gradients = []
    for one in (model, moved(model, device)):
        images = pixels[:1].to(device=one.device, dtype=one.dtype)
        labels = PROMPT.clone()
        labels[:, :6] = -100
        one.zero_grad()
        ids = PROMPT.to(one.device)
        one(input_ids=ids, labels=labels.to(one.device), images=images, latency_budget=0.7).loss.backward()
        gradients.append({name: p.grad.cpu() for name, p in one.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-4, rtol=1e-3)


def test_cleared_plan_cache_gives_its_memory_back(make_llava, pixels, device: torch.device) -> None:
    on_device = moved(make_llava("H"), device)
    generate(on_device, pixels, 1.0)  # what the libraries keep for themselves

    def allocated() -> int:
        gc.collect()
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    before = allocated()
    for budget in BUDGETS:
        generate(on_device, pixels, budget)
    on_device.narrow_cache.clear()
    assert allocated() <= before
