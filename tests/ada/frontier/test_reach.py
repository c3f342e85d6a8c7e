"""The lowest budget that a prompt reaches: against every amount and number of units."""

import pytest
from fixtures.known_device import L7B, PROFILE

from ada.frontier.choice import candidate_amounts
from ada.frontier.reach import Amounts, amounts_of, minimum_ms
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor


@pytest.mark.parametrize("late", [False, True])
def test_minimum_is_that_of_the_cheapest_amount_and_no_units(late) -> None:
    predictor, amounts = TTFTPredictor(PROFILE, L7B), Amounts(576, candidate_amounts(late))
    asked = Workload(636, 16, 1)
    front = [60 + int(share * 576) for share in (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 6, 1 / 8)]
    times = [
        predictor.first_token_ms(Workload(tokens, units, 1, None, int(tokens < 636)))
        for tokens in front
        for units in range(L7B.tunable + 1)
    ]
    assert minimum_ms(predictor, asked, amounts) == pytest.approx(min(times))
    assert minimum_ms(predictor, asked) == predictor.first_token_ms(Workload(636, 0, 1)) > min(times)


def test_minimum_of_text_alone_is_the_same_with_any_amount() -> None:
    predictor, amounts = TTFTPredictor(PROFILE, L7B), Amounts(576, candidate_amounts(True))
    assert minimum_ms(predictor, Workload(80, 9, 0), amounts) == minimum_ms(predictor, Workload(80, 9, 0))


def test_amounts_of_a_model_are_those_that_it_was_trained_with(make_llava) -> None:
    amounts = amounts_of(make_llava("H", image_token_dropout=0.5, token_scorer_layer=2))
    assert amounts.image_tokens == 4 and min(amount.front.share for amount in amounts.candidates) == 0.5
    assert any(amount.late for amount in amounts.candidates)
