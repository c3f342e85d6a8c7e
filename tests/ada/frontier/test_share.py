"""The share of a prefill: against operations counted by the cost model, and against the units of all image tokens."""

import dataclasses

import pytest
from fixtures.known_device import H7B, L7B
from hypothesis import given
from hypothesis import strategies as st

from ada.config import AdaLlavaConfig
from ada.cost.plans import even_plan
from ada.cost.products import layer_products
from ada.frontier.share import PrefillShare, PromptTokens
from ada.image_tokens.amount import ImageTokens
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.units import Units

GROUPED = AdaLlavaConfig(
    hidden_size=192, intermediate_size=400, num_hidden_layers=10, num_attention_heads=8, num_key_value_heads=4
)
CONFIG_7B = AdaLlavaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
)
UNITS = [H7B, L7B, Units("H", 10, 2, 4, 2), Units("L", 10, 2, 4, 1), Units("H", 49, 7, 8, 1)]


@st.composite
def prompts(draw):
    full = draw(st.integers(1, 3000))
    front = draw(st.integers(1, full))
    return PromptTokens(full, front, draw(st.integers(1, front)))


units_of = st.sampled_from(UNITS)
shares = st.builds(lambda units: PrefillShare.of(CONFIG_7B, units), units_of)
fractions = st.floats(0.001, 1.0) | st.integers(1, 100).map(lambda percent: percent / 100)


@pytest.mark.parametrize("config", [GROUPED, CONFIG_7B], ids=["grouped", "7b"])
@pytest.mark.parametrize("positions", [1, 60, 636])
def test_layer_flops_are_those_of_the_cost_model(config, positions) -> None:
    units = Units("L", config.num_hidden_layers, 2, config.num_key_value_heads, 1)
    dense = ExecutionPlan.full(1, units.num_switches).layers[0]
    counted = sum(p.flops for p in layer_products(config, dense, units.num_switches, positions, positions))
    assert PrefillShare.of(config, units).layer_flops(positions) == counted


def counted_share(config, units, tokens, num_units, first_late_layer):
    """Operations of each layer of an even plan, front or late positions, over those of all layers and positions."""
    plan, switches = even_plan(units, num_units), units.num_switches
    positions = [tokens.front if index < first_late_layer else tokens.late for index in range(units.num_layers)]
    ran = sum(
        product.flops
        for layer, count in zip(plan.layers, positions, strict=True)
        for product in layer_products(config, layer, switches, count, count)
    )
    dense = ExecutionPlan.full(1, switches).layers[0]
    return ran / units.num_layers / sum(p.flops for p in layer_products(config, dense, switches, *[tokens.full] * 2))


@pytest.mark.parametrize("units", [H7B, L7B], ids=["H", "L"])
@pytest.mark.parametrize("first_late_layer", [2, 16, 20])
@pytest.mark.parametrize("layers", [0, 4, 16])
def test_share_is_that_of_counted_operations_or_above_it_for_later_layers(units, first_late_layer, layers) -> None:
    tokens, num_units = PromptTokens(636, 348, 132), layers * units.per_layer
    counted = counted_share(CONFIG_7B, units, tokens, num_units, first_late_layer)
    share = PrefillShare.of(CONFIG_7B, units, first_late_layer).of_prefill(tokens, num_units)
    if first_late_layer <= units.num_prefix_layers or layers == 16:
        assert share == pytest.approx(counted, rel=1e-3)  # groups of neurons differ by one
    else:
        assert counted <= share * 1.001


def test_share_of_the_study_at_7b_is_its_decoder_s_part() -> None:
    """144 of 576 tokens at all layers: 0.343 of tower and decoder in the study, of which the tower has 4 %."""
    share = PrefillShare.of(CONFIG_7B, L7B).of_prefill(PromptTokens.with_images(60, 576, 144, 144), 16)
    assert share == pytest.approx(0.312, abs=0.005)


@given(units_of, fractions, st.integers(1, 3000))
def test_granted_with_all_tokens_is_the_units_own(units, fraction, positions) -> None:
    share = PrefillShare.of(CONFIG_7B, units)
    assert share.granted(fraction, PromptTokens.all_of(positions)) == units.granted(fraction)


@given(units_of, st.integers(1, 3000))
def test_share_of_all_tokens_is_the_fraction_of_units(units, positions) -> None:
    share, tokens = PrefillShare.of(CONFIG_7B, units), PromptTokens.all_of(positions)
    for num_units in range(units.tunable + 1):
        fraction = units.fraction(num_units)
        assert share.of_prefill(tokens, num_units) == fraction
        assert share.is_within(fraction, tokens, num_units)


@given(shares, prompts(), fractions)
def test_granted_is_the_maximum_within_the_budget(share, tokens, fraction) -> None:
    granted, choices = share.granted(fraction, tokens), range(share.units.tunable + 1)
    fitting = [n for n in choices if share.of_prefill(tokens, n) <= fraction + 1e-12]
    rounded = tokens.late == tokens.full and granted == share.units.granted(fraction)  # in float64
    assert granted == max(fitting, default=0) or rounded
    assert share.is_within(fraction, tokens, granted) == bool(fitting)


@given(shares, prompts(), st.data())
def test_share_grows_with_each_of_units_front_and_late(share, tokens, data) -> None:
    num_units = data.draw(st.integers(0, share.units.tunable))
    taken = share.of_prefill(tokens, num_units)
    assert 0 < taken <= 1
    if num_units < share.units.tunable:
        assert taken < share.of_prefill(tokens, num_units + 1)
    if tokens.late < tokens.front:
        later = dataclasses.replace(tokens, late=tokens.late + 1)
        assert (taken < share.of_prefill(later, num_units)) == (num_units > 0)
    if tokens.front < tokens.full:
        assert taken < share.of_prefill(dataclasses.replace(tokens, front=tokens.front + 1), num_units)


@given(shares, prompts())
def test_minimum_is_accepted_and_a_ten_thousandth_less_is_not(share, tokens) -> None:
    minimum = share.minimum(tokens)
    assert share.is_within(minimum, tokens, 0)
    assert minimum <= 1e-4 or not share.is_within(minimum - 1.0001e-4, tokens, 0)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("all", (90, 90, 90)),
        ("50%", (90, 55, 55)),
        ("50%/10%", (90, 55, 26)),
        ("10%/10%", (90, 26, 26)),
        (8, (90, 36, 36)),
        ("all/1", (90, 90, 22)),
        ("7 shared", (90, 27, 27)),
    ],
)
def test_positions_under_an_amount_are_rounded_for_each_image(amount, expected) -> None:
    """20 positions, and images of 36 and 34 tokens: a tenth of each is 3."""
    tokens = PromptTokens.under(ImageTokens.parse(amount), 20, [36, 34])
    assert (tokens.full, tokens.front, tokens.late) == expected
