"""Granted units of one prompt: by share and by time, with a part of its image tokens."""

import pytest
from fixtures.known_device import H7B, L7B, PROFILE
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.budget import LatencyBudget, TimeBudget
from ada.config import AdaLlavaConfig
from ada.frontier.share import PrefillShare, PromptTokens
from ada.latency.grant import granted_units, refuse_unreachable, workload_of
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from llava.errors import OptionError

CONFIG_7B = AdaLlavaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
)
SHARE = PrefillShare.of(CONFIG_7B, L7B)
ALL, QUARTER = PromptTokens.all_of(636), PromptTokens.with_images(60, 576, 144, 144)


def test_granted_units_without_a_budget_are_all() -> None:
    assert granted_units(SHARE, None, None, QUARTER, 1) == L7B.tunable


@pytest.mark.parametrize(("fraction", "expected"), [(0.3, 14), (0.25, 9), (0.2, 4), (0.16, 0), (0.1, 0)])
def test_granted_units_of_a_quarter_of_the_tokens_are_more(fraction, expected) -> None:
    """A layer over 204 of 636 positions takes 0.312 of one over all, so 32 layers take 0.312: 0.3 pays for 30."""
    assert granted_units(SHARE, None, LatencyBudget(fraction), QUARTER, 1) == expected
    assert granted_units(SHARE, None, LatencyBudget(fraction), ALL, 1) == 0


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([H7B, L7B]), st.floats(1, 500), st.integers(1, 576), st.integers(1, 576))
def test_granted_units_of_a_time_are_the_maximum_that_fits(units, ms, front, late) -> None:
    predictor, share = TTFTPredictor(PROFILE, units), PrefillShare.of(CONFIG_7B, units)
    tokens = PromptTokens.with_images(60, 576, front, late)
    kept = 60 + min(front, late)
    times = [
        predictor.first_token_ms(Workload(60 + front, n, 1, kept if late < front else None, int(front < 576)))
        for n in range(units.tunable + 1)
    ]
    expected = max((n for n, time in enumerate(times) if time <= ms), default=0)
    assert granted_units(share, predictor, TimeBudget(ms), tokens, 1) == expected


def test_strict_share_is_refused_with_the_minimum_of_these_tokens() -> None:
    with pytest.raises(OptionError, match=r"16 of its 32 layers on 204 of its 636 positions; .* budget is 0\.15"):
        granted_units(SHARE, None, LatencyBudget(0.1), QUARTER, 1, strict=True)
    minimum = SHARE.minimum(QUARTER)
    assert granted_units(SHARE, None, LatencyBudget(minimum), QUARTER, 1, strict=True) == 0


def test_refusal_with_all_tokens_names_the_fraction_of_the_prefix() -> None:
    with pytest.raises(OptionError, match=r"always runs 16 of its 32 layers; the minimum reachable budget is 0\.5$"):
        refuse_unreachable(SHARE, LatencyBudget(0.4), ALL)
    refuse_unreachable(SHARE, LatencyBudget(0.5), ALL)


def test_strict_time_is_refused_with_the_minimum_of_these_tokens() -> None:
    predictor = TTFTPredictor(PROFILE, L7B)
    minimum = predictor.first_token_ms(Workload(204, 0, 1, None, 1))
    with pytest.raises(OptionError, match=f"takes at least {minimum:.4g} ms"):
        granted_units(SHARE, predictor, TimeBudget(minimum - 1), QUARTER, 1, strict=True)
    assert granted_units(SHARE, predictor, TimeBudget(minimum + 0.1), QUARTER, 1, strict=True) == 0


def test_time_without_a_calibration_is_refused() -> None:
    with pytest.raises(OptionError, match=r"850ms: a time needs a calibration.*python -m ada\.calibrate"):
        granted_units(SHARE, None, TimeBudget(850, "850ms"), ALL, 1)


def test_workload_of_tokens_left_out_after_layer_p_counts_all_that_enter() -> None:
    late = PromptTokens.with_images(60, 576, 288, 144)
    assert workload_of(PrefillShare.of(CONFIG_7B, L7B, 20), late, 1) == Workload(348, 0, 1, None, 1)
    assert workload_of(PrefillShare.of(CONFIG_7B, L7B, 16), late, 1, 5) == Workload(348, 5, 1, 204, 1)
