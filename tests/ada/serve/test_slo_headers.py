"""llm-d's headers for latency: what they read, and what an API with a calibrated worker answers to them."""

import openai
import pytest

from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from ada.serve.slo_headers import fields_of_headers
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


def test_fields_of_headers_for_first_and_later_tokens_are_clauses() -> None:
    both = {"x-llm-d-slo-ttft-ms": "300", "x-llm-d-slo-tpot-ms": "20.5"}
    assert fields_of_headers(both) == {"latency_budget": "ttft=300ms,tpot=20.5ms"}
    assert fields_of_headers({"x-llm-d-slo-tpot-ms": "20"}) == {"latency_budget": "tpot=20ms"}
    assert fields_of_headers({"x-slo-tpot-ms": "20"}) == {"latency_budget": "tpot=20ms"}
    assert fields_of_headers({"x-llm-d-slo-ttft-ms": "300", "x-slo-ttft-ms": "3e2"}) == {"latency_budget": "300ms"}
    with pytest.raises(OptionError, match="x-slo-ttft-ms asks for 200ms, and another for 300ms"):
        fields_of_headers({"x-llm-d-slo-ttft-ms": "300", "x-slo-ttft-ms": "200"})


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


def test_clauses_by_header_in_the_body_and_in_extra_arguments_are_reported(served, ask) -> None:
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)
    ways = (
        {"extra_headers": {"x-llm-d-slo-ttft-ms": "90000", "x-llm-d-slo-tpot-ms": "9000"}},
        {"extra_body": {"latency_budget": "ttft=90s,tpot=9s"}},
        {"extra_body": {"latency_budget": {"ttft_ms": 90000.0, "tpot": "9s"}}},
        {"extra_body": {"vllm_xargs": {"latency_budget": "ttft=90s,tpot=9s"}}},
    )
    for way in ways:
        reply = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "w5"}], max_tokens=5, **way
        )
        clauses = reply.llava["latency_budget"]["clauses"]
        assert [one["name"] for one in clauses] == ["ttft", "tpot"]
        assert [one["requested_ms"] for one in clauses] == pytest.approx([90000, 9000])
        assert all(0 < one["measured_ms"] < one["requested_ms"] and one["min_ms"] > 0 for one in clauses)
        assert reply.choices[0].finish_reason in ("stop", "length") and reply.choices[0].stop_reason is None


def test_answer_without_time_for_more_ends_and_says_so(served, ask) -> None:
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)
    reply = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "w5"}],
        max_tokens=50,
        extra_body={"latency_budget": "total=1ms", "ignore_eos": True},
    )
    choice, budget = reply.choices[0], reply.llava["latency_budget"]
    assert (choice.finish_reason, choice.stop_reason) == ("length", "time")
    assert 0 < reply.usage.completion_tokens < 10 and not budget["met"]
    assert budget["clauses"][0]["min_ms"] > 1


def test_extra_arguments_that_are_unknown_or_given_twice_are_refused(served, ask) -> None:
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)

    def refused(**body) -> str:
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "w5"}], max_tokens=3, extra_body=body
            )
        return str(error.value)

    assert "vllm_xargs has 'speed'; expected some of latency_budget" in refused(vllm_xargs={"speed": 1})
    assert "given twice, once in vllm_xargs" in refused(latency_budget=0.5, vllm_xargs={"latency_budget": 0.5})
    assert "vllm_xargs.latency_budget" in refused(vllm_xargs={"latency_budget": [1]})
    assert "ttft=300ms,tpot=20ms" in refused(vllm_xargs={"latency_budget": "soon=3ms"})
