"""A promise of quality in a request: what answers, what is reported, what is refused."""

from __future__ import annotations

import openai
import pytest

from ada.quality import table
from ada.quality.table import Promise, PromiseTable
from ada.serve.quality_field import promise_of


@pytest.fixture
def ask(served, loaded, monkeypatch):
    """``ask(**fields)``: a worker whose model keeps a promise of 5 %, with a threshold that nothing reaches."""
    kept = PromiseTable((Promise(0.05, 0.6, 1e9, 0.9, 0.0, 0.0, 2000),), "promises.json")
    for module in ("ada.quality.cascade", "ada.serve.quality_field"):
        monkeypatch.setattr(f"{module}.promises_of", lambda config: kept)
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)

    def create(temperature=0.0, **fields):
        chat = [{"role": "user", "content": "w5 w6"}]
        return client.chat.completions.create(
            model="tiny", messages=chat, max_tokens=4, temperature=temperature, extra_body=fields
        )

    return create


def test_answer_says_which_stage_gave_it(ask):
    promised, full = ask(max_disagreement="5%"), ask()
    quality = promised.llava["latency_budget"]["quality"]
    assert (quality["stage"], quality["disagreement"]) == ("full", 0.05) and quality["refused_flops"] > 0
    assert promised.choices[0].message.content == full.choices[0].message.content
    assert full.llava["latency_budget"]["quality"] is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"max_disagreement": 0.01}, "promises 0.05"),
        ({"max_disagreement": 2.0}, "expected a share in (0, 1)"),
        ({"max_disagreement": 0.05, "latency_budget": 0.5}, "leave out latency_budget"),
        ({"max_disagreement": 0.05, "image_tokens": 2}, "leave out latency_budget, image_tokens and token_selector"),
        ({"max_disagreement": 0.05, "token_selector": "grid"}, "leave out latency_budget, image_tokens and"),
        ({"max_disagreement": 0.05, "temperature": 1.0}, "promise for greedy answers"),
    ],
)
def test_what_cannot_be_promised_is_refused(ask, fields, complaint):
    with pytest.raises(openai.BadRequestError) as error:
        ask(**fields)
    assert complaint in str(error.value)
    assert table.FILE_NAME == "promises.json"


@pytest.mark.parametrize(
    ("fields", "promise"),
    [
        ({"temperature": 0.0, "top_p": 1.0}, 0.05),
        ({"temperature": 1e-3, "top_p": 1.0}, 0.05),
        ({"temperature": 1.0, "top_p": 0.0}, 0.05),
        ({"temperature": 1.0, "top_p": 1.0}, None),
        ({"latency_budget": 0.5}, None),
        ({"image_tokens": "25%"}, None),
        ({"token_selector": "grid"}, None),
    ],
)
def test_workers_promise_is_for_greedy_requests_that_choose_nothing_themselves(loaded, fields, promise):
    assert promise_of(loaded.model, fields, {"max_disagreement": 0.05}) == promise
