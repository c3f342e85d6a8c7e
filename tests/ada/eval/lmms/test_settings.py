"""lmms-eval's settings are read as this project's, and bad ones are refused."""

from __future__ import annotations

import logging

import pytest
import torch

from ada.eval.lmms.settings import batch_size_of, dtype_named, plugin_options, read_generation_kwargs
from ada.options import generation_options, prepare_model
from llava.errors import OptionError
from llava.generation import SamplingParams


@pytest.mark.parametrize(
    ("kwargs", "sampling"),
    [
        ({}, SamplingParams(max_new_tokens=1024)),
        ({"temperature": 0.0, "top_p": 0, "num_beams": 1, "max_new_tokens": 128}, SamplingParams(max_new_tokens=128)),
        ({"do_sample": True, "top_p": 0.9}, SamplingParams(1.0, 0.9, 1, 1024)),
        ({"do_sample": True, "temperature": 0.2}, SamplingParams(0.2, None, 1, 1024)),
        ({"temperature": 0.7, "max_new_tokens": None}, SamplingParams(0.7, None, 1, 1024)),
        ({"do_sample": False, "temperature": 0.7, "num_beams": 3}, SamplingParams(num_beams=3, max_new_tokens=1024)),
    ],
)
def test_generation_kwargs_set_the_sampling(kwargs, sampling) -> None:
    assert read_generation_kwargs(kwargs).sampling == sampling


@pytest.mark.parametrize(("until", "stops"), [(None, ()), ("###", ("###",)), (["a", "", "b"], ("a", "b"))])
def test_generation_kwargs_set_the_stop_texts(until, stops) -> None:
    assert read_generation_kwargs({"until": until}).stops == stops


@pytest.mark.parametrize("until", [3, [None]])
def test_generation_kwargs_refuse_stops_that_are_no_text(until) -> None:
    with pytest.raises(OptionError, match="expected a text, or a list of texts"):
        read_generation_kwargs({"until": until})


def test_generation_kwargs_without_effect_are_named_in_a_warning(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        read_generation_kwargs({"image_aspect_ratio": "original", "modalities": ["image"], "temperature": 0})
    assert "image_aspect_ratio, modalities have no effect" in caplog.text


def test_plugin_options_have_all_flags_and_refuse_unknown_ones() -> None:
    options = plugin_options({"latency_budget": 0.6})
    assert options["latency_budget"] == 0.6 and options["planner"] is None
    with pytest.raises(OptionError, match=r"latencybudget; expected one of image_tokens, latency_budget, .*planner"):
        plugin_options({"latencybudget": 0.6})


@pytest.mark.parametrize(("given", "amount"), [("25%", "25%"), (144, "144"), ("50%/25%", "50%/25%"), (None, "None")])
def test_plugin_options_image_tokens_as_lmms_eval_parses_them_reach_generate(make_llava, given, amount) -> None:
    options = plugin_options({"image_tokens": given, "token_selector": "divprune"})
    keywords = generation_options(make_llava("H"), options)
    assert (str(keywords["image_tokens"]), keywords["token_selector"]) == (amount, "divprune")


@pytest.mark.parametrize("given", [0, -3, "200%", 0.5, True])
def test_plugin_options_image_tokens_out_of_range_are_named(make_llava, given) -> None:
    with pytest.raises(OptionError, match=f"--image-tokens is {given!r}; expected all, auto"):
        prepare_model(make_llava("H"), plugin_options({"image_tokens": given}))


def test_dtype_is_named_as_in_torch() -> None:
    assert dtype_named("bfloat16") is torch.bfloat16
    with pytest.raises(OptionError, match="dtype is 'int8'"):
        dtype_named("int8")


def test_batch_size_is_a_number_from_one_up() -> None:
    assert batch_size_of("8") == 8
    for size in ("auto", "0", None):
        with pytest.raises(OptionError, match="whole number from 1 up"):
            batch_size_of(size)
