"""Model names, stopping criteria, constants."""

import json

import pytest
import torch

from llava import constants
from llava.mm_utils import KeywordsStoppingCriteria, get_model_name_from_path


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "utils.json").read_text())


def test_constants(recorded):
    assert {name: getattr(constants, name) for name in recorded["constants"]} == recorded["constants"]


def test_model_names(recorded):
    for path, name in recorded["get_model_name_from_path"]:
        assert get_model_name_from_path(path) == name, path


def test_bare_checkpoint_name():
    """Upstream raises IndexError: there is no parent to name."""
    assert get_model_name_from_path("checkpoint-5") == "checkpoint-5"


def test_stopping(recorded, llama_tokenizer):
    tokenizer = llama_tokenizer(recorded["meta"]["tokenizer_legacy"])
    for case in recorded["keywords_stopping_criteria"]:
        criterion = KeywordsStoppingCriteria(case["keywords"], tokenizer, torch.tensor([case["prompt_ids"]]))
        assert [ids.tolist() for ids in criterion.keyword_ids] == case["keyword_ids"], case
        assert criterion.max_keyword_len == case["max_keyword_len"], case
        assert criterion.start_len == case["start_len"], case
        assert criterion(torch.tensor(case["output_ids"]), None) == case["stop"], case
