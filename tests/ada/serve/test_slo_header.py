"""The header ``x-slo-ttft-ms``: what it reads, and what an API with a calibrated worker answers to it."""

import openai
import pytest

from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from ada.serve.slo_header import fields_of_headers
from llava.errors import OptionError


@pytest.mark.parametrize(
    ("text", "budget"), [("850", "850ms"), ("12.5", "12.5ms"), ("1e3", "1000ms"), (" 7 ", "7ms"), ("0.001", "0.001ms")]
)
def test_fields_of_headers_milliseconds_become_a_budget(text, budget) -> None:
    assert fields_of_headers({"x-slo-ttft-ms": text}) == {"latency_budget": budget}


def test_fields_of_headers_without_the_header_are_none() -> None:
    assert fields_of_headers({"accept": "*/*"}) == {}


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "inf", "1e300", "1e-9", "fast", "850ms", "1,5", "0x10"])
def test_fields_of_headers_not_a_time_is_a_user_error(text) -> None:
    with pytest.raises(OptionError, match="x-slo-ttft-ms"):
        fields_of_headers({"x-slo-ttft-ms": text})


@pytest.fixture
def ask(served, loaded, monkeypatch):
    """``ask(milliseconds, **options)``: what a worker on a calibrated device answers to the header."""
    profile, _ = calibrate(loaded.model, 16)
    monkeypatch.setattr(served.service.policy, "predictor", TTFTPredictor(profile, loaded.model.units))
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)

    def create(milliseconds: str, **options):
        headers, chat = {"x-slo-ttft-ms": milliseconds}, [{"role": "user", "content": "w5"}]
        return client.chat.completions.create(
            model="tiny", messages=chat, max_tokens=3, extra_headers=headers, **options
        )

    return create


def test_header_ample_time_is_met_and_reported(ask) -> None:
    budget = ask("60000").llava["latency_budget"]
    assert (budget["requested"], budget["requested_ms"], budget["granted"], budget["met"]) == (None, 60000, 1, True)
    assert 0 < budget["predicted_ms"] < 60000 and budget["measured_ms"] > 0


def test_header_time_below_the_minimum_is_reported_as_not_met(ask) -> None:
    assert ask("0.001").llava["latency_budget"]["met"] is False


def test_header_time_below_the_minimum_is_refused_where_strict(ask) -> None:
    with pytest.raises(openai.APIError, match="--strict-latency-budget is set, but this prompt takes"):
        ask("0.001", extra_body={"latency_budget_policy": "strict"})
