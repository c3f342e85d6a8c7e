"""The choice of image tokens: against every combination, for shares and for times, and each prompt by itself."""

import itertools

import pytest
from fixtures.known_device import H7B, L7B, PROFILE
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.budget import LatencyBudget, TimeBudget
from ada.config import AdaLlavaConfig
from ada.frontier.choice import SHARES, AutoImageTokens, Offer, Prompt, candidate_amounts, choose
from ada.frontier.defaults import TRAINED
from ada.frontier.share import PrefillShare, PromptTokens
from ada.frontier.table import Frontier, Point
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, ImageTokens
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from llava.errors import OptionError

CONFIG_7B = AdaLlavaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
)
ONE_IMAGE, TWO_IMAGES = Prompt(60, (576,), 1), Prompt(40, (576, 300), 2)


def chooser(units, late=True):
    share = PrefillShare.of(CONFIG_7B, units)
    return AutoImageTokens(TRAINED, share, candidate_amounts(late), TTFTPredictor(PROFILE, units))


def fitting_settings(auto, prompt, fits):
    """Every combination of amount and units that fits, as (accuracy, share, amount), by trying each."""
    units, images = auto.share.units, sum(prompt.images)
    for amount, num_units in itertools.product(auto.candidates, range(units.tunable + 1)):
        tokens = PromptTokens.under(amount, prompt.others, prompt.images)
        if fits(tokens, num_units):
            shares = [(count - prompt.others) / images for count in (tokens.front, tokens.late)]
            accuracy = float(auto.frontier.predicted([(*shares, units.fraction(num_units))])[0])
            yield accuracy, auto.share.of_prefill(tokens, num_units), amount


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([H7B, L7B]), st.sampled_from([ONE_IMAGE, TWO_IMAGES]), st.floats(0.05, 1), st.booleans())
def test_amount_under_a_share_is_the_most_accurate_of_all_that_fit(units, prompt, fraction, late) -> None:
    auto = chooser(units, late)

    def fits(tokens, num_units):
        return auto.share.of_prefill(tokens, num_units) <= fraction

    fitting = list(fitting_settings(auto, prompt, fits))
    offer = choose(auto.frontier, auto.offers(prompt, LatencyBudget(fraction)))
    assert offer.fits == bool(fitting)
    if fitting:
        assert auto.frontier.predicted([offer.setting])[0] == pytest.approx(max(fitting, key=lambda one: one[0])[0])
        assert offer.share <= fraction


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([H7B, L7B]), st.floats(60, 400))
def test_amount_under_a_time_is_the_most_accurate_of_all_that_fit(units, ms) -> None:
    auto = chooser(units)

    def fits(tokens, num_units):
        late = tokens.late if tokens.late < tokens.front else None
        workload = Workload(tokens.front, num_units, 1, late, int(tokens.front < tokens.full))
        return auto.predictor.first_token_ms(workload) <= ms

    fitting = list(fitting_settings(auto, ONE_IMAGE, fits))
    offer = choose(auto.frontier, auto.offers(ONE_IMAGE, TimeBudget(ms)))
    assert offer.fits == bool(fitting)
    if fitting:
        assert auto.frontier.predicted([offer.setting])[0] == pytest.approx(max(fitting, key=lambda one: one[0])[0])


def offer(amount, accuracy_units, share, fits=True):
    return Offer(ImageTokens.parse(amount), (1.0, 1.0, accuracy_units), share, fits)


FLAT = Frontier((Point(1, 1, 0.5, 0.9), Point(1, 1, 1, 0.9)), "test")


def test_choose_of_equal_accuracies_takes_the_smallest_share() -> None:
    offers = [offer(1, 1.0, 0.9), offer(2, 0.5, 0.4), offer(3, 0.7, 0.5), offer(4, 0.4, 0.1)]
    assert choose(FLAT, offers).amount == ImageTokens.parse(2)


def test_choose_where_nothing_fits_takes_the_smallest_share() -> None:
    offers = [offer(1, 1.0, 0.9, False), offer(2, 0.5, 0.4, False)]
    assert choose(FLAT, offers).amount == ImageTokens.parse(2)


def test_choose_prefers_what_fits_to_what_is_more_accurate() -> None:
    assert choose(FLAT, [offer(1, 1.0, 0.9, False), offer(2, 0.2, 0.95)]).amount == ImageTokens.parse(2)


@pytest.mark.parametrize("prompt", [ONE_IMAGE, Prompt(60, (), 0)])
def test_amount_without_a_budget_or_an_image_is_all(prompt) -> None:
    budget = None if prompt.images else LatencyBudget(0.3)
    assert chooser(H7B).amount(prompt, budget) == ALL_IMAGE_TOKENS


def test_amount_at_the_full_budget_is_all() -> None:
    assert chooser(H7B).amount(ONE_IMAGE, LatencyBudget(1.0)) == ALL_IMAGE_TOKENS


def test_amounts_of_smaller_budgets_differ_and_need_fewer_operations() -> None:
    auto = chooser(H7B)
    offers = [choose(auto.frontier, auto.offers(ONE_IMAGE, LatencyBudget(b))) for b in (0.9, 0.6, 0.4, 0.3, 0.2)]
    shares = [one.share for one in offers]
    assert shares == sorted(shares, reverse=True) and len({one.amount for one in offers}) >= 4


def test_amount_under_a_time_without_calibration_is_refused() -> None:
    auto = AutoImageTokens(TRAINED, PrefillShare.of(CONFIG_7B, H7B), candidate_amounts(False))
    with pytest.raises(OptionError, match=r"a time needs a calibration of this device; run python -m ada\.calibrate"):
        auto.amount(ONE_IMAGE, TimeBudget(100))


def test_candidates_of_a_trained_minimum_do_not_go_below_it() -> None:
    fronts = [amount.front.share for amount in candidate_amounts(False, 0.2)]
    assert sorted(fronts) == [0.2, *(share for share in sorted(SHARES) if share > 0.2)]
    assert len(candidate_amounts(True)) == 28 and len(candidate_amounts(False)) == len(SHARES)
    assert all(amount.late.share < amount.front.share for amount in candidate_amounts(True) if amount.late)
