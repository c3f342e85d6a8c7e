"""The latency model: the fit of its coefficients."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from fixtures.known_device import DECODE, H7B, KNOWN, L7B, PLAN, REST, random_workloads
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.frontier.share import PromptTokens
from ada.latency.latency_model import Workload, decode_terms, fit, plan_terms, predict, rest_terms


@pytest.mark.parametrize(
    ("known", "terms"),
    [
        (PLAN, plan_terms),
        (REST, lambda workload: rest_terms(workload, H7B)),
        (DECODE, lambda workload: decode_terms(workload, H7B)),
    ],
    ids=["plan", "rest", "decode"],
)
def test_fit_recovers_known_coefficients(known, terms) -> None:
    workloads = [replace(one, rows=1 + number % 8) for number, one in enumerate(random_workloads(H7B, 60))]
    rows = [terms(workload) for workload in workloads]
    assert fit(rows, [predict(known, row) for row in rows]) == pytest.approx(known, rel=1e-6)


def test_terms_are_those_of_the_formulas() -> None:
    """600 positions, of which 100 are known and later layers read 200; 20 of 128 units, in each of 16 layers."""
    one = Workload(600, 20, 2, late_tokens=200, num_selected=1, known_tokens=100)
    assert plan_terms(one) == [1, 2, 500, 500 * 600, 1]
    s = g = 20 / 128
    assert rest_terms(one, H7B) == pytest.approx([1, 200, 16, s, 200 * s, 200**2 * s, g, 1])
    s = (64 + 20) / 128
    assert decode_terms(replace(one, rows=3), H7B) == pytest.approx([1, 3, 32, s, s * s, 3 * s, 600 * s, g])
    assert decode_terms(one, H7B, in_loop=False)[:2] == [0, 1]


@pytest.mark.parametrize(("units", "granted", "layers", "narrow"), [(H7B, 5, 5, 5), (H7B, 64, 16, 0), (L7B, 5, 5, 0)])
def test_terms_of_units_count_their_layers_and_what_is_cut(units, granted, layers, narrow) -> None:
    one, share = Workload(600, granted, 0), granted / units.total
    g = narrow / units.total
    assert rest_terms(one, units) == pytest.approx([1, 600, layers, share, 600 * share, 600**2 * share, g, 0])
    assert decode_terms(one, units)[2::5] == pytest.approx([16 + layers, g])


def noisy_times(seed: int, noise: float) -> tuple[list[list[float]], list[float]]:
    rng = random.Random(seed)
    rows = [rest_terms(workload, L7B) for workload in random_workloads(L7B, 24)]
    return rows, [predict(REST, row) * math.exp(rng.gauss(0, noise)) for row in rows]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_fit_of_noisy_times_has_no_negative_coefficient(seed, noise) -> None:
    rows, times = noisy_times(seed, noise)
    found = fit(rows, times)
    assert min(found) >= 0
    errors = sorted(abs(predict(found, row) / ms - 1) for row, ms in zip(rows, times, strict=True))
    assert errors[len(errors) // 2] < 3 * noise


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.5))
def test_fit_of_noisy_times_is_the_minimum(seed, noise) -> None:
    """Karush-Kuhn-Tucker: the error's gradient is 0 for a positive coefficient, and not negative for one at 0."""
    rows, times = noisy_times(seed, noise)
    relative = np.asarray(rows) / np.asarray(times)[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0] = 1
    found = np.asarray(fit(rows, times)) * scale
    gradient = (relative / scale).T @ (relative / scale @ found - 1)
    assert (gradient > -1e-7).all() and np.abs(gradient[found > 1e-9]).max() < 1e-7


def test_fit_of_a_term_that_is_always_zero_gives_it_zero() -> None:
    assert fit([[1.0, 0.0, 1.0], [1.0, 0.0, 3.0], [1.0, 0.0, 4.0]], [2.0, 4.0, 5.0]) == pytest.approx([1, 0, 1])


def test_late_tokens_shorten_the_rest_alone_and_cost_a_selection() -> None:
    """Terms of the rest at 200 positions instead of 600; in the plan all 600 count, in decode the context."""
    full, late = Workload(600, 16, 1), Workload(600, 16, 1, late_tokens=200)
    every, part = KNOWN.prefill(full, L7B), KNOWN.prefill(late, L7B)
    assert part.to_plan_ms == every.to_plan_ms
    rest = KNOWN.prefill(Workload(200, 16, 1), L7B)
    assert part.ttft_ms - part.to_plan_ms == pytest.approx(rest.ttft_ms - rest.to_plan_ms + 4.0)
    assert KNOWN.inter_token_ms(late, L7B) == KNOWN.inter_token_ms(full, L7B)


def test_selection_before_the_decoder_costs_once_an_image() -> None:
    both, none = (KNOWN.prefill(Workload(600, 16, 2, None, selected), L7B).ttft_ms for selected in (2, 0))
    assert both - none == pytest.approx(2 * 3.0)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (PromptTokens(636, 636, 636), Workload(636, 3, 2)),
        (PromptTokens(636, 348, 348), Workload(348, 3, 2, None, 2)),
        (PromptTokens(636, 348, 132), Workload(348, 3, 2, 132, 2)),
        (PromptTokens(636, 636, 132), Workload(636, 3, 2, 132, 0)),
        (PromptTokens(636, 636, 636, known=600), Workload(636, 3, 2, known_tokens=600)),
    ],
)
def test_workload_of_a_prompt_counts_what_is_left_out(tokens, expected) -> None:
    assert Workload.of(tokens, 3, 2) == expected
    assert Workload.of(tokens, 3, 2, late_from_prefix=False).late_tokens is None
