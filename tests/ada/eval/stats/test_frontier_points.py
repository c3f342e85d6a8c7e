"""Points, curves and the table of a frontier, from marks that are known."""

import pytest
from fixtures.known_device import L7B

from ada.config import AdaLlavaConfig
from ada.eval.answering.grid import GridSetting
from ada.eval.stats.frontier_points import best_of, chosen_curve, curves, frontier_table, measured_points
from ada.frontier.choice import AutoImageTokens, Prompt
from ada.frontier.share import PrefillShare
from ada.frontier.table import Frontier
from ada.image_tokens.amount import ImageTokens

CONFIG_7B = AdaLlavaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
)
SHARE, PROMPT = PrefillShare.of(CONFIG_7B, L7B), Prompt(60, (576,), 1)
RIGHT = {("all", 16): 10, ("all", 8): 9, ("all", 0): 5, ("50%", 16): 9, ("50%", 8): 8, ("25%", 16): 7, ("25%", 0): 6}


@pytest.fixture
def measured():
    marks = {
        GridSetting(ImageTokens.parse(amount), units): [number < right for number in range(10)]
        for (amount, units), right in RIGHT.items()
    }
    return measured_points(marks, SHARE, PROMPT)


def test_points_have_the_shares_of_tokens_and_units(measured) -> None:
    points = {(str(one.setting.amount), one.setting.num_units): one.point for one in measured}
    assert points["50%", 8].setting == (0.5, 0.5, 24 / 32) and points["50%", 8].accuracy == 0.8
    assert points["all", 0].setting == (1, 1, 0.5)


def test_best_points_are_beaten_by_no_other_one(measured) -> None:
    beaten = {
        one.setting
        for one in measured
        for other in measured
        if other.share <= one.share and other.accuracy.share >= one.accuracy.share and other is not one
    }
    assert {one.setting for one in best_of(measured)} == {one.setting for one in measured} - beaten
    assert len(best_of(measured)) > 2


def test_table_lists_all_settings_by_falling_share(measured) -> None:
    lines = frontier_table(measured).splitlines()[2:]
    shares = [float(line.split("|")[1]) for line in lines]
    assert len(lines) == len(RIGHT) and shares == sorted(shares, reverse=True) and shares[0] == 1
    assert sum("| yes |" in line for line in lines) == len(best_of(measured))


def test_curves_have_the_points_of_each_amount(measured) -> None:
    found = curves(measured)
    assert list(found) == ["all", "50%", "25%"]
    assert found["all"] == [(0.5, 0.5), (0.75, 0.9), (1.0, 1.0)]


def test_chosen_curve_passes_the_full_setting_and_never_falls(measured) -> None:
    frontier = Frontier(tuple(one.point for one in measured), "test")
    amounts = [ImageTokens.parse(text) for text in ("all", "50%", "25%")]
    curve = chosen_curve(AutoImageTokens(frontier, SHARE, amounts), PROMPT, 0.2)
    assert curve[-1] == (1.0, 1.0)
    accuracies = [accuracy for _, accuracy in curve]
    assert accuracies == sorted(accuracies) and len(set(accuracies)) > 5


def test_chosen_curve_from_any_minimum_ends_at_the_full_budget(measured) -> None:
    """From some of these the last budget was 1 and 2e-16."""
    frontier = Frontier(tuple(one.point for one in measured), "test")
    auto = AutoImageTokens(frontier, SHARE, [ImageTokens.parse(text) for text in ("all", "50%")])
    for minimum in [number / 997 for number in range(150, 990, 7)]:
        shares = [share for share, _ in chosen_curve(auto, PROMPT, minimum)]
        assert shares == sorted(shares) and max(shares) <= 1.0
