"""The web demo's part for latency budgets, from a worker's replies."""

import re
import xml.etree.ElementTree as ET

import gradio as gr
import pytest

from ada.image_tokens.amount import ImageTokens
from ada.serve.demo.budget_part import NO_BUDGET, START, BudgetPart
from ada.serve.demo.figures import differences, full_model_ms, knew
from llava.serve.web.conversation_state import Answered
from llava.serve.web.demo_part import SIDES

PART = BudgetPart()


def rows(shown: str) -> dict[str, str]:
    """The table's values by their labels."""
    return dict(re.findall("<tr><th scope='row'>(.*?)</th><td>(.*?)</td></tr>", shown))


def answered(reply) -> Answered:
    return Answered("?", reply["text"].removeprefix("w5"), reply)


@pytest.fixture
async def half_and_full(make_service, client_of) -> list[Answered]:
    async with client_of(make_service()) as client:
        return [answered((await client.ask(max_new_tokens=3, latency_budget=b))[-1]) for b in (0.5, 1.0)]


def test_panels_of_the_start() -> None:
    assert PART.show([], [], {}) == [START, ""]


@pytest.mark.anyio
async def test_panel_shows_plan_and_figures_of_the_last_answer(half_and_full) -> None:
    half, full = half_and_full
    report, every = half.reply["latency_budget"], full.reply["latency_budget"]
    assert report["whole_prefill_gflops"] == pytest.approx(every["prefill_gflops"])
    assert report["whole_decode_gflops_per_token"] == pytest.approx(every["decode_gflops_per_token"])
    alone, _ = PART.show([half], [], {})
    assert rows(alone)["budget"] == "50 % of the compute" and "the full model" not in alone
    after, history = PART.show([full, half], [], {})
    run, of = report["heads"]
    assert rows(after)["attention heads"] == f"{run} of {of}"
    took = full.reply["time_to_first_token_ms"] - full.reply["queue_ms"]
    assert f"the full model took {took:.0f} ms" in rows(after)["time to first token"]
    assert "<svg" in history and full_model_ms([full, half]) == pytest.approx(took)
    drawn = [re.search("<svg.*?</svg>", PART.show([one], [], {})[0])[0] for one in (half, full)]
    assert drawn[0] != drawn[1], "another plan, another drawing"


@pytest.mark.anyio
async def test_answer_without_a_plan_says_that_all_ran(half_and_full) -> None:
    reply = {**half_and_full[0].reply, "latency_budget": None}
    assert PART.show([Answered("?", "!", reply)], [], {})[0] == NO_BUDGET


@pytest.mark.anyio
async def test_live_panel_shows_what_is_decided(half_and_full) -> None:
    plan = half_and_full[0].reply["latency_budget"]["plan"]
    state = {"latency_budget": {"layers": 4, "prefix_layers": 2, "switches": 4}}
    before, _ = PART.show_live({}, [], state)
    assert "not decided yet" in before and before.count("class='undecided'") == 2
    decided, _ = PART.show_live({"latency_budget": {"plan": plan}}, [], state)
    at_the_end, _ = PART.show([half_and_full[0]], [], state)
    assert re.search("<svg.*?</svg>", decided)[0] == re.search("<svg.*?</svg>", at_the_end)[0]
    assert PART.show_live({}, [], {})[0] == START, "of a worker that says nothing"


@pytest.mark.anyio
async def test_differences_say_what_was_asked_for_and_what_ran(half_and_full) -> None:
    half, full = half_and_full
    found = {one.name: one for one in differences(full, half)}
    assert found["budget"][1:] == ("100 %", "50 %", "")
    (run, of), change = half.reply["latency_budget"]["heads"], found["attention heads"].change
    assert found["attention heads"][1:3] == (f"{of} of {of}", f"{run} of {of}")
    assert change == f"\N{MINUS SIGN}{round(100 * (of - run) / of)} %"
    assert {one.change for one in differences(half, half)} == {"same"}
    assert differences(half, Answered("?", "!", {})) == [], "of a worker without budgets"


@pytest.mark.anyio
async def test_answer_to_a_known_prompt_is_no_measure_of_the_full_model(make_service, client_of) -> None:
    async with client_of(make_service()) as client:
        reply = (await client.ask(max_new_tokens=2, latency_budget=1.0))[-1]
    known = {**reply, "latency_budget": {**reply["latency_budget"], "known_tokens": [5]}}
    assert not knew(answered(reply)) and full_model_ms([answered(reply)]) is not None
    assert knew(answered(known)) and full_model_ms([answered(known)]) is None


@pytest.mark.anyio
async def test_panel_shows_image_tokens_and_a_drawing_of_a_workers_reply(
    make_service, client_of, image_text, image_file
) -> None:
    images = [image_file.read_bytes()]
    async with client_of(make_service()) as client:
        asked = [{"image_tokens": "3/1", "token_selector": "grid/fastv"}, {"image_tokens": "all"}]
        body = {"prompt": "<image>\nw5", "images": [image_text], "max_new_tokens": 2}
        fewer, every = [answered((await client.ask(**body, **more))[-1]) for more in asked]
        text = answered((await client.ask(max_new_tokens=2))[-1])
    shown = PART.show([fewer], images, {})[0]
    assert rows(shown)["image tokens"] == "3 of 4, 1 in later layers"
    svg = ET.fromstring(re.findall("<svg.*?</svg>", shown)[1])
    assert [path.get("d").count("M") for path in svg.iter("path")] == [1, 2], "left out, and read early only"
    shown = PART.show([every], images, {})[0]
    assert rows(shown)["image tokens"] == "4 of 4" and shown.count("<svg") == 1
    assert "image tokens" not in rows(PART.show([text], [], {})[0])


def test_fields_are_those_that_say_anything() -> None:
    assert PART.fields(["0.5", "25%"]) == {"latency_budget": "0.5", "image_tokens": "25%"}
    assert PART.fields(["45ms", ""]) == {"latency_budget": "45ms"}
    assert PART.fields(["", ""]) == {}


def test_comparison_starts_with_all_of_the_compute_against_half() -> None:
    with gr.Blocks():
        controls = [PART.controls(side)[0] for side in ("", *SIDES)]
    assert [control.value for control in controls] == ["1", "1", "0.5"]
    titles = [re.search('<span class="title">(.*?)</span>', control.html_template)[1] for control in controls]
    assert titles == ["Latency budget", "Latency budget A", "Latency budget B"]


@pytest.mark.parametrize(
    ("state", "fitted", "budgets"),
    [
        ({}, False, None),
        ({"latency_budget": {"budgets": [[1, 9]]}}, True, [[1, 9]]),
        ({"model": "m"}, True, None),
    ],
)
def test_control_gets_the_range_that_the_worker_says(state, fitted, budgets) -> None:
    control, tokens = PART.fit(state)
    assert (control.props["fitted"], control.props["budgets"]) == (fitted, budgets) and tokens == gr.skip()


def test_choice_of_image_tokens_is_the_models_unless_one_is_made() -> None:
    with gr.Blocks():
        (tokens,) = PART.settings()
    assert tokens.value == ""
    amounts = [str(ImageTokens.parse(value)) for _, value in tokens.choices if value]
    assert amounts == ["auto", "all", "75%", "50%", "25%", "10%"]
