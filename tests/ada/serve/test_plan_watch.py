"""What a worker says of budgets before an answer is finished: what they reach, and the plan as it is made."""

import json
import shutil
from dataclasses import replace

import pytest
from fixtures.known_device import PROFILE

from ada.frontier.defaults import UNTRAINED
from ada.frontier.store import save_frontier
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.execution_plan import ExecutionPlan
from ada.serve.plan_watch import PlanWatch
from ada.serve.reachable import STEPS, TEXT_TOKENS
from llava.errors import CheckpointError
from llava.model.loaded_model import open_model


@pytest.fixture
def predictor(loaded) -> TTFTPredictor:
    return TTFTPredictor(PROFILE, loaded.model.units)


@pytest.mark.anyio
@pytest.mark.parametrize("budget", [1.0, 0.5])
async def test_client_that_follows_gets_the_plan_before_the_end(make_service, client_of, budget) -> None:
    async with client_of(make_service()) as client:
        parts = await client.ask(max_new_tokens=200, latency_budget=budget, progress=True)
        unwatched = await client.ask(max_new_tokens=200, latency_budget=budget)
    last = parts[-1]
    plans = [part["latency_budget"]["plan"] for part in parts[:-1] if "latency_budget" in part]
    assert plans == [last["latency_budget"]["plan"]]
    assert unwatched[-1]["text"] == last["text"] and not any("latency_budget" in part for part in unwatched[:-1])


def test_plan_that_shrinks_is_published_again(loaded) -> None:
    published: list[dict] = []
    on_plan = PlanWatch(loaded, {}).watch(published.append)["on_plan"]
    units = loaded.model.units
    plans = [ExecutionPlan.full(units.num_layers, units.num_switches), ExecutionPlan.full(1, 2)]
    for plan in plans:
        on_plan([plan])
    assert [ExecutionPlan.from_json(one["latency_budget"]["plan"]) for one in published] == plans


@pytest.mark.anyio
async def test_ready_says_what_budgets_reach(make_service, client_of, loaded) -> None:
    async with client_of(make_service()) as client:
        said = (await client.get("/ready")).json()["latency_budget"]
    units = loaded.model.units
    assert (said["layers"], said["switches"]) == (units.num_layers, units.num_switches)
    assert said["prefix_layers"] == units.num_prefix_layers
    shares = [share for share, _ in said["budgets"]]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == STEPS + 1
    assert [ms for _, ms in said["budgets"]] == [None] * len(shares), "not calibrated"


@pytest.mark.anyio
async def test_minimum_is_what_the_cheapest_answer_has(make_service, client_of, image_text) -> None:
    """Compared with a real answer, to a prompt as long as the one that is taken for typical."""
    async with client_of(make_service()) as client:
        said = (await client.get("/ready")).json()["latency_budget"]["budgets"][0][0]
        prompt = "<image>" + " w5" * (TEXT_TOKENS - 1)
        answers = [
            (await client.ask(prompt=prompt, images=[image_text], max_new_tokens=1, latency_budget=budget))[-1]
            for budget in (0.0001, round(said + 0.02, 3))
        ]
    cheapest, reached = [answer["latency_budget"] for answer in answers]
    assert not cheapest["met"] and cheapest["prefill_share"] == pytest.approx(said, abs=0.02)
    assert reached["met"]


def test_times_are_those_of_the_devices_calibration(loaded, predictor) -> None:
    calibrated = replace(loaded, options={**loaded.options, "ttft_predictor": predictor})
    budgets = PlanWatch(calibrated, {"image_tokens": "all"}).state()["latency_budget"]["budgets"]
    image_tokens = 4
    positions = TEXT_TOKENS + 1 + image_tokens  # and the latency token
    cheapest, full = [Workload(positions, units, 1) for units in (0, loaded.model.units.tunable)]
    for (_, ms), workload in ((budgets[0], cheapest), (budgets[-1], full)):
        assert ms == pytest.approx(predictor.first_token_ms(workload), abs=0.06)


def test_worker_next_to_a_frontier_of_other_weights_is_refused_as_it_starts(adaptive_checkpoint, tmp_path) -> None:
    """Else its /ready, which reads the frontier, would fail, and with it every chat through the API."""
    folder = tmp_path / "tiny"
    shutil.copytree(adaptive_checkpoint, folder)
    save_frontier(folder, UNTRAINED.points, {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "of": "other weights"}))
    flags = {"model_path": str(folder), "device": "cpu", "adaptive_budget": None}  # as a worker that is given none
    with pytest.raises(CheckpointError, match="measured with other weights"):
        open_model(flags)
    assert open_model({"model_path": str(folder), "device": "cpu"}).model is not None, "a program that reads none"
    save_frontier(folder, UNTRAINED.points, {})
    assert len(PlanWatch(open_model(flags), flags).state()["latency_budget"]["budgets"]) == STEPS + 1


def test_model_without_budgets_says_nothing_about_them(loaded) -> None:
    class Plain:
        """A model that takes no budgets."""

    assert PlanWatch(replace(loaded, model=Plain()), {}).state() == {}
