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
