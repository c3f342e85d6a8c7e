"""Parsing how many image tokens are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada.image_tokens.amount import AUTO, ImageTokens, image_tokens_of_rows, shared_counts
from llava.errors import OptionError


@pytest.mark.parametrize(
    ("value", "of_36"),
    [
        ("all", 36),
        (" all ", 36),
        (9, 9),
        ("9", 9),
        ("1", 1),
        (500, 36),
        ("25%", 9),
        ("100%", 36),
        ("1%", 1),
        ("33.4%", 12),
    ],
)
def test_parse_amount_gives_the_number_of_an_images_tokens(value, of_36):
    assert ImageTokens.parse(value).front.of(36) == of_36


@pytest.mark.parametrize(
    "value",
    [
        0,
        -3,
        "0",
        "-3",
        "200%",
        "0%",
        "-5%",
        "nan%",
        "%",
        "",
        "some",
        0.5,
        True,
        None,
        "1.5",
        "٣",
        [3],
        "1e2",
        "50%/",
        "/9",
        "9/9/9",
        "9 shared shared",
        "shared",
        "0 shared",
        "auto/9",
        "9/0",
        pytest.param("9" * 5000, id="5000 digits"),
        "18/200%",
    ],
)
def test_parse_amount_that_cannot_be_used_is_refused_by_value(value):
    with pytest.raises(OptionError, match=r"--image-tokens is .*; expected all, auto, a number"):
        ImageTokens.parse(value)


def test_parse_two_amounts_are_those_in_front_and_those_of_later_layers():
    found = ImageTokens.parse("50% / 9")
    assert (found.front.of(36), found.late.of(36), str(found)) == (18, 9, "50%/9")


@pytest.mark.parametrize("value", ["25%/50%", "9/18", " 10% / 25%", "9 shared/12"])
def test_parse_more_tokens_later_than_enter_is_refused(value):
    with pytest.raises(OptionError, match="cannot read more tokens than enter") as caught:
        ImageTokens.parse(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "late"), [("50%/50%", 18), ("50%/all", 36), ("25%/36", 36), ("9/50%", 18), ("9/18 shared", 18)]
)
def test_parse_two_amounts_that_may_differ_by_image_are_read(value, late):
    assert ImageTokens.parse(value).late.of(36) == late


@pytest.mark.parametrize(
    ("value", "counts"), [("9 shared", [2, 5, 2]), ("25% shared", [2, 6, 2]), ("1 shared", [1] * 3)]
)
def test_parse_shared_amount_is_of_all_images(value, counts):
    amount = ImageTokens.parse(value).front
    assert amount.shared and str(amount) == value
    assert sum(amount.of_each([9, 24, 9])) == max(3, amount.of(42)) and amount.of_each([9, 24, 9]) == counts


@given(st.integers(0, 80), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_shared_counts_are_in_proportion_and_at_least_one(total, tokens):
    counts = shared_counts(total, tokens)
    assert sum(counts) == max(len(tokens), min(total, sum(tokens)))
    assert all(1 <= count <= own for count, own in zip(counts, tokens, strict=True))
    exact = [own * sum(counts) / sum(tokens) for own in tokens]
    assert all(count <= part + 2 for count, part in zip(counts, exact, strict=True))


def test_parse_auto_is_left_to_the_budget():
    assert ImageTokens.parse(" auto ") == AUTO and str(AUTO) == "auto"
    assert not ImageTokens.parse("all").auto


@given(st.integers(1, 100), st.integers(1, 2000))
def test_share_of_tokens_is_never_more_than_asked_but_at_least_one(percent, tokens):
    kept = ImageTokens.parse(f"{percent}%").front.of(tokens)
    assert 1 <= kept <= max(1, tokens * percent / 100 + 1e-6) and (kept == 1 or kept > tokens * percent / 100 - 1)


def test_amounts_of_rows_one_for_all_or_one_each():
    assert image_tokens_of_rows(None, 2) == [ImageTokens(), ImageTokens()]
    assert [amount.front.of(36) for amount in image_tokens_of_rows("50%", 2)] == [18, 18]
    assert [amount.front.of(36) for amount in image_tokens_of_rows([4, None], 2)] == [4, 36]
    with pytest.raises(OptionError, match="3 values of image_tokens for a batch of 2"):
        image_tokens_of_rows([1, 2, 3], 2)
