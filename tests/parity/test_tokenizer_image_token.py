"""Prompts with image tags become the ids that upstream's slow tokenizer gave."""

import json

import pytest

from llava.mm_utils import tokenizer_image_token


@pytest.fixture(scope="module", params=["legacy_true", "legacy_false"])
def variant(request, golden, llama_tokenizer):
    recorded = json.loads((golden / "tokenizer_image_token.json").read_text())["variants"]
    if request.param not in recorded:
        pytest.skip(f"{request.param} is not recorded")
    return recorded[request.param]["cases"], llama_tokenizer(legacy=request.param == "legacy_true")


def test_ids(variant):
    cases, tokenizer = variant
    for case in cases:
        assert tokenizer_image_token(case["prompt"], tokenizer) == case["image_aware_ids"], case["prompt"]
        assert tokenizer(case["prompt"]).input_ids == case["plain_ids"], case["prompt"]


def test_text(variant):
    cases, tokenizer = variant
    for case in cases:
        ids = [token for token in case["image_aware_ids"] if token >= 0]
        assert tokenizer.decode(ids, skip_special_tokens=True) == case["decode_skip_special"], case["prompt"]


def test_tensor(variant):
    cases, tokenizer = variant
    for case in cases:
        assert tokenizer_image_token(case["prompt"], tokenizer, return_tensors="pt").tolist() == case["image_aware_ids"]


@pytest.mark.parametrize(
    ("legacy", "expected"),
    [(True, "<s> USER: a</s> USER: b c</s>"), (False, "<s> USER: a</s>USER: b c</s>")],
)
def test_text_with_its_marks(llama_tokenizer, legacy, expected):
    """What upstream's slow tokenizer gives for whole conversations, marks included."""
    tokenizer = llama_tokenizer(legacy=legacy)
    assert tokenizer.decode(tokenizer("USER: a</s>USER: b c</s>").input_ids) == expected
