"""``generate`` under budgets in time, by a known profile and a clock that the test moves."""

import pytest
import torch
from fixtures.known_device import PROFILE, KnownDevice, SteppedClock, expected
from transformers import StoppingCriteriaList

from ada.budget import TimeBudget
from ada.latency.device_profile import DeviceFingerprint
from ada.latency.latency_model import Elapsed, Workload
from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.generation import TokenClock

RETURN = {"return_dict_in_generate": True}


def test_generate_grants_what_fits_when_the_plan_is_made(model, monkeypatch, ids=((1, 5, 6, 7),)) -> None:
    """By a hand-made profile and clock: what is granted is what fits when the plan is made."""
    prompt = torch.tensor(ids)
    with pytest.raises(OptionError, match=r"850ms.*python -m ada\.calibrate"):
        model.generate(prompt, latency_budget="850ms", max_new_tokens=2)
    model.latency = TTFTPredictor(PROFILE, model.units)
    tokens, most = len(ids[0]) + 1, model.units.tunable
    plan = expected(Workload(tokens, 0, 0), model.units).to_plan_ms
    options = {"max_new_tokens": 2, **RETURN}
    granted = []
    for spent in (0.5 * plan, plan, 1.3 * plan, 2 * plan):
        ends = [model.latency.first_token_ms(Workload(tokens, n, 0), Elapsed(0, spent)) for n in range(most + 1)]
        for ms in (30.0, sorted(ends)[2] + 0.1, max(ends) + 50):
            SteppedClock(monkeypatch, 0, spent)
            out = model.generate(prompt, latency_budget=TimeBudget(ms), **options)
            fits = [n for n, end in enumerate(ends) if end <= ms]
            assert out.report.granted == model.units.fraction(max(fits, default=0))
            assert out.execution_plan.share == pytest.approx(out.report.granted), "and that is what runs"
            assert out.report.budget_met == bool(fits) and out.report.plan_ms == pytest.approx(spent)
            assert out.report.predicted_ms == pytest.approx(ends[max(fits, default=0)])
            assert "predicted" in out.report.summary()
            granted += [out.report.granted] if ms == 30 else []
    assert granted == sorted(granted, reverse=True) and len(set(granted)) > 2, "the later, the less"
    SteppedClock(monkeypatch, 0, plan)
    out = model.generate(prompt, latency_budget="1ms", **options)
    least = model.latency.first_token_ms(Workload(tokens, 0, 0), Elapsed(0, plan))
    assert not out.report.budget_met and f"{least:.4g} ms is the least here" in out.report.summary()
    least = model.latency.first_token_ms(Workload(tokens, 0, 0))
    with pytest.raises(OptionError, match=f"1ms.*takes {least:.4g} ms at the least"):
        model.generate(prompt, latency_budget="1ms", strict_latency_budget=True, **options)


def test_latency_token_encodes_what_is_granted_before_the_call(model, monkeypatch) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    told, encode = [], model.scheduler.encode
    monkeypatch.setattr(model.scheduler, "encode", lambda u: (told.append(u), encode(u))[1])
    plan = expected(Workload(4, 0, 0), model.units).to_plan_ms
    SteppedClock(monkeypatch, 0, 9 * plan)
    budget = TimeBudget(model.latency.first_token_ms(Workload(4, 3, 0)) + 1e-6)
    out = model.generate(torch.tensor([[1, 5, 6]]), latency_budget=budget, max_new_tokens=1, **RETURN)
    before = model.latency.units_within(budget.milliseconds, 4, 0)
    assert told[0].tolist() == pytest.approx([model.units.encoding(before)]) and before >= 3
    assert out.report.granted == model.units.fraction(0), "and a slow way to the plan leaves nothing"


def test_generate_of_several_rows_grants_each_row_its_own_budget(model, monkeypatch) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    plan = expected(Workload(4, 0, 0), model.units).to_plan_ms
    SteppedClock(monkeypatch, 0, 2 * plan)
    budgets = [TimeBudget(ms) for ms in (30.0, 45.0, 900.0)]
    out = model.generate(torch.tensor([[1, 5, 6]] * 3), latency_budget=budgets, max_new_tokens=1, **RETURN)
    gone = Elapsed(0, 2 * plan)
    most = [model.latency.units_within(budget.milliseconds, 4, 0, gone) for budget in budgets]
    assert [report.granted for report in out.report] == [model.units.fraction(n) for n in most]
    assert len(set(most)) == 3 and [plan.share for plan in out.execution_plan] == pytest.approx(
        [report.granted for report in out.report]
    )


def test_forward_with_an_answer_grants_by_the_question_alone(model) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    budget = TimeBudget(model.latency.first_token_ms(Workload(5, 3, 0)) + 1e-6)
    granted = set()
    for answer in ([7], [7] * 60):
        ids = torch.tensor([[1, 5, 6, 8, *answer]])
        labels = ids.clone()
        labels[:, :4] = IGNORE_INDEX
        granted.add(int(model(ids, labels=labels, latency_budget=budget).granted_units))
    assert granted == {model.latency.units_within(budget.milliseconds, 5, 0)}


def test_preprocessing_is_taken_from_the_budget_and_answers_correct_the_predictor(model, monkeypatch) -> None:
    """A program's clock runs since the question was asked: what came before the call is taken from the budget, and does
    not count as a slow device."""
    model.latency = TTFTPredictor(PROFILE, model.units)
    point = Workload(4, model.units.tunable, 0)
    plan, first = expected(point, model.units)
    budget = model.latency.first_token_ms(point, Elapsed(40, plan)) + 1e-6
    for before, whole in ((40.0, True), (41.0, False)):
        asked = TokenClock(None)
        asked.start = 100.0
        SteppedClock(monkeypatch, before, plan, first - plan)
        out = model.generate(
            torch.tensor([[1, 5, 6]]),
            latency_budget=TimeBudget(budget),
            max_new_tokens=1,
            **RETURN,
            stopping_criteria=StoppingCriteriaList([asked]),
        )
        assert (out.report.granted == 1) == whole and out.report.before_ms == pytest.approx(before)
        assert out.report.budget_met and before < out.report.predicted_ms <= budget
    seen = []
    monkeypatch.setattr(model.latency, "observe", lambda *times: seen.append(times))
    for rows, tokens in ((1, asked), (1, None), (2, asked)):
        asked.stamps.clear()
        SteppedClock(monkeypatch, 7, 3 * plan, 0.5 * plan)
        criteria = StoppingCriteriaList([] if tokens is None else [tokens])
        model.generate(torch.tensor([[1, 5, 6]] * rows), max_new_tokens=1, stopping_criteria=criteria)
    ((said, measured),) = seen
    assert said == expected(point, model.units) and measured == pytest.approx((3 * plan, 3.5 * plan))


def test_prepare_model_for_answer_files_fixes_the_predictor(model, monkeypatch, tmp_path) -> None:
    from ada.overlay import prepare_model

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibrate(model, 16, timer=KnownDevice(model))[0].save(DeviceFingerprint.of(model).path)
    for options, later in (({"batch_size": 1}, False), ({}, True)):
        model.latency = None
        prepare_model(model, {"latency_budget": "850ms", "no_auto_calibrate": True, **options})
        at_once, point = model.latency.first_token_ms(Workload(9, 2, 0)), Workload(9, 2, 0)
        assert (model.latency.first_token_ms(point, Elapsed(5, 900)) > at_once) == later


def test_prepare_model_refuses_a_time_budget_for_batches(model) -> None:
    from ada.overlay import prepare_model

    with pytest.raises(OptionError, match="--batch-size is 4 and --latency-budget 850ms"):
        prepare_model(model, {"latency_budget": "850ms", "batch_size": 4})


def test_describe_generation_reports_measured_times(model) -> None:
    from ada.overlay import describe_generation

    model.latency = TTFTPredictor(PROFILE, model.units)
    out = model.generate(torch.tensor([[1, 5, 6]]), latency_budget="9s", max_new_tokens=2, return_dict_in_generate=True)
    facts = describe_generation(model, out, {"time_to_first_token_ms": 12.5})
    assert facts["measured_ms"] == 12.5 and facts["requested_ms"] == 9000 and facts["granted"] == 1
    assert "predicted" in facts["summary"] and facts["summary"].endswith("measured 12.5 ms")
