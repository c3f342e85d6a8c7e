"""``generate`` under budgets in time, by a known profile and a clock that the test moves."""

import pytest
import torch
from fixtures.known_device import PROFILE, KnownDevice, SteppedClock, expected

from ada.budget import TimeBudget
from ada.engine.serving import AdaptiveTransformersRows, EngineRowDecoder
from ada.latency import ready
from ada.latency.device_profile import DeviceFingerprint
from ada.latency.latency_model import Elapsed, Workload
from ada.latency.measure import calibrate
from ada.latency.pacer import OUT_OF_TIME
from ada.latency.ttft_predictor import TTFTPredictor
from ada.options import prepare_model
from ada.overlay import describe_generation
from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.token_clock import TokenClock

PROMPT = torch.tensor([[1, 5, 6]])
TIMING = {"tokens_per_second": 0.0, "new_tokens": 1.0}
WIDTH = 4  # positions of the prompt, with the latency token


@pytest.fixture
def predictor(model) -> TTFTPredictor:
    return TTFTPredictor(PROFILE, model.units)


@pytest.fixture
def to_plan_ms(model) -> float:
    """Milliseconds to the plan on the known device."""
    return expected(Workload(WIDTH, 0, 0), model.units).to_plan_ms


@pytest.fixture
def generate(model, predictor):
    """``generate(budget, ...)``: one token after ``PROMPT``, with plan and report."""

    def call(budget=None, prompt=PROMPT, **options):
        given = {"max_new_tokens": 1, "return_dict_in_generate": True, "ttft_predictor": predictor, **options}
        return model.generate(prompt, latency_budget=budget, **given)

    return call


def test_generate_without_a_predictor_refuses_a_time_budget(generate) -> None:
    with pytest.raises(OptionError, match=r"850ms.*python -m ada\.calibrate"):
        generate("850ms", ttft_predictor=None)


@pytest.mark.parametrize("slower", [0.5, 1.0, 1.3, 2.0])
def test_generate_grants_what_fits_when_the_plan_is_made(
    model, predictor, generate, to_plan_ms, monkeypatch, slower
) -> None:
    spent = slower * to_plan_ms
    grid = range(model.units.tunable + 1)
    for index in (None, 2, model.units.tunable):
        predictor.reset()
        ttfts = [predictor.first_token_ms(Workload(WIDTH, n, 0), Elapsed(0, spent)) for n in grid]
        budget_ms = 30.0 if index is None else sorted(ttfts)[index] + 0.1
        fits = [n for n, ms in enumerate(ttfts) if ms <= budget_ms]
        SteppedClock(monkeypatch, 0, 0, spent)
        out = generate(TimeBudget(budget_ms))
        assert out.report.granted == model.units.fraction(max(fits, default=0))
        assert out.execution_plan.share == pytest.approx(out.report.granted), "and that is what runs"
        assert out.report.budget_met == bool(fits)
        assert out.report.to_plan_ms == pytest.approx(spent)
        assert out.report.ttft_p95_ms == pytest.approx(ttfts[max(fits, default=0)])


def test_generate_grants_less_when_the_plan_is_made_later(predictor, generate, to_plan_ms, monkeypatch) -> None:
    granted = []
    for slower in (0.5, 1.0, 1.3, 2.0):
        predictor.reset()
        SteppedClock(monkeypatch, 0, 0, slower * to_plan_ms)
        granted.append(generate(TimeBudget(30.0)).report.granted)
    assert granted == sorted(granted, reverse=True) and len(set(granted)) > 2


def test_generate_under_an_unreachable_time_reports_the_minimum(predictor, generate, to_plan_ms, monkeypatch) -> None:
    minimum = predictor.first_token_ms(Workload(WIDTH, 0, 0), Elapsed(0, to_plan_ms))
    SteppedClock(monkeypatch, 0, 0, to_plan_ms)
    report = generate("1ms").report
    assert not report.budget_met and report.min_ttft_ms == pytest.approx(minimum)
    assert f"the minimum is {minimum:.4g} ms here" in report.summary()


def test_generate_with_a_strict_unreachable_time_raises(predictor, generate, monkeypatch) -> None:
    SteppedClock(monkeypatch)
    minimum = predictor.first_token_ms(Workload(WIDTH, 0, 0))
    with pytest.raises(OptionError, match=f"1ms.*takes at least {minimum:.4g} ms"):
        generate("1ms", strict_latency_budget=True)


def test_latency_token_encodes_what_is_granted_before_the_call(
    model, predictor, generate, to_plan_ms, monkeypatch
) -> None:
    encoded, encode = [], model.scheduler.encode
    monkeypatch.setattr(model.scheduler, "encode", lambda u: (encoded.append(u), encode(u))[1])
    budget = TimeBudget(predictor.first_token_ms(Workload(WIDTH, 3, 0)) + 1e-6)
    before = predictor.units_within(budget, Workload(WIDTH, 0, 0))
    SteppedClock(monkeypatch, 0, 0, 9 * to_plan_ms)
    out = generate(budget)
    assert encoded[0].tolist() == pytest.approx([model.units.encoding(before)]) and before >= 3
    assert out.report.granted == model.units.fraction(0), "and a slow way to the plan leaves nothing"


def test_generate_of_several_rows_grants_each_row_its_own_budget(
    model, predictor, generate, to_plan_ms, monkeypatch
) -> None:
    budgets = [TimeBudget(ms) for ms in (30.0, 45.0, 900.0)]
    elapsed = Elapsed(0, 2 * to_plan_ms)
    fitting = [predictor.units_within(budget, Workload(WIDTH, 0, 0), elapsed) for budget in budgets]
    SteppedClock(monkeypatch, 0, 0, 2 * to_plan_ms)
    out = generate(budgets, prompt=PROMPT.expand(3, -1))
    granted = [report.granted for report in out.report]
    assert granted == [model.units.fraction(n) for n in fitting] and len(set(fitting)) == 3
    assert [plan.share for plan in out.execution_plan] == pytest.approx(granted)


def test_forward_with_an_answer_grants_by_the_question_alone(model, predictor) -> None:
    budget = TimeBudget(predictor.first_token_ms(Workload(5, 3, 0)) + 1e-6)
    granted = set()
    for answer in ([7], [7] * 60):
        ids = torch.tensor([[1, 5, 6, 8, *answer]])
        labels = ids.clone()
        labels[:, :4] = IGNORE_INDEX
        output = model(ids, labels=labels, latency_budget=budget, ttft_predictor=predictor)
        granted.add(int(output.granted_units))
    assert granted == {predictor.units_within(budget, Workload(5, 0, 0))}


@pytest.mark.parametrize(("preprocess_ms", "runs_all"), [(40.0, True), (41.0, False)])
def test_preprocessing_is_taken_from_the_budget(
    model, predictor, generate, monkeypatch, preprocess_ms, runs_all
) -> None:
    """The program's clock runs since the question was asked; what came before the call does not count as slow."""
    workload = Workload(WIDTH, model.units.tunable, 0)
    timing = expected(workload, model.units)
    budget = TimeBudget(predictor.first_token_ms(workload, Elapsed(40, timing.to_plan_ms)) + 1e-6)
    clock = TokenClock()
    clock.start = 100.0
    SteppedClock(monkeypatch, preprocess_ms, timing.to_plan_ms, timing.ttft_ms - timing.to_plan_ms)
    report = generate(budget, clock=clock).report
    assert (report.granted == 1) == runs_all and report.preprocess_ms == pytest.approx(preprocess_ms)
    assert report.budget_met and preprocess_ms < report.ttft_p95_ms <= budget.milliseconds


def observations(predictor, monkeypatch) -> list:
    seen: list = []
    monkeypatch.setattr(predictor, "observe", lambda *timings: seen.append(timings))
    return seen


def test_an_answer_corrects_the_predictor(model, predictor, generate, to_plan_ms, monkeypatch) -> None:
    seen = observations(predictor, monkeypatch)
    SteppedClock(monkeypatch, 0, 7, 3 * to_plan_ms, 0.5 * to_plan_ms)
    generate()
    ((predicted, measured),) = seen
    assert predicted == expected(Workload(WIDTH, model.units.tunable, 0), model.units)
    assert measured == pytest.approx((3 * to_plan_ms, 3.5 * to_plan_ms)), "without the 7 ms before the call"


def test_several_rows_do_not_correct_the_predictor(predictor, generate, monkeypatch) -> None:
    seen = observations(predictor, monkeypatch)
    generate(prompt=PROMPT.expand(2, -1))
    assert not seen


@pytest.mark.parametrize(("options", "follows_the_clock"), [({"batch_size": 1}, False), ({}, True)])
def test_prepare_model_for_answer_files_fixes_the_predictor(
    model, monkeypatch, tmp_path, options, follows_the_clock
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibrate(model, 16, timer=KnownDevice(model))[0].save(DeviceFingerprint.of(model).path)
    added = prepare_model(model, {"latency_budget": "850ms", "no_auto_calibrate": True, **options})
    predictor, workload = added["ttft_predictor"], Workload(9, 2, 0)
    late = predictor.first_token_ms(workload, Elapsed(5, 900))
    assert (late > predictor.first_token_ms(workload)) == follows_the_clock


def test_prepare_model_warms_up_a_model_that_is_calibrated(model, monkeypatch, tmp_path) -> None:
    warmed: list = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ready, "warm_up", warmed.append)
    assert "ttft_predictor" not in prepare_model(model, {}) and not warmed
    calibrate(model, 16, timer=KnownDevice(model))[0].save(DeviceFingerprint.of(model).path)
    assert "ttft_predictor" in prepare_model(model, {}) and warmed == [model]


def test_prepare_model_refuses_a_time_budget_for_batches(model) -> None:
    with pytest.raises(OptionError, match="--batch-size is 4 and --latency-budget 850ms"):
        prepare_model(model, {"latency_budget": "850ms", "batch_size": 4})


def test_describe_generation_reports_measured_times(model, generate) -> None:
    metadata = describe_generation(model, generate("9s"), {**TIMING, "time_to_first_token_ms": 12.5})
    assert (metadata["measured_ms"], metadata["requested_ms"], metadata["granted"]) == (12.5, 9000, 1)
    assert "predicted" in metadata["summary"] and metadata["summary"].endswith("measured 12.5 ms")


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_answer_ends_with_its_total_whichever_loop_decodes(generate, engine) -> None:
    clock = TokenClock()
    out = generate("total=0.001ms", clock=clock, engine=engine, max_new_tokens=40, min_new_tokens=40, pad_token_id=0)
    assert clock.ended_by == OUT_OF_TIME and len(out.sequences[0]) == 2
    assert (out.report.by_transformers is None) == (engine == "auto")


def test_rows_of_transformers_loop_are_planned_with_all_of_their_tokens(model, predictor) -> None:
    settings = {"inputs": PROMPT, "do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0}
    settings |= {"latency_budget": "total=10s", "ttft_predictor": predictor, "clock": TokenClock()}
    planned = {}
    for rows in (EngineRowDecoder(model, 1), AdaptiveTransformersRows(model)):
        engine = {"engine": "transformers"} if isinstance(rows, AdaptiveTransformersRows) else {}
        output, row = rows.read({**settings, "max_new_tokens": 20, **engine})
        planned[type(rows)] = output.report.clauses[0].predicted_ms
        rows.remove(row)
    assert planned[AdaptiveTransformersRows] == pytest.approx(planned[EngineRowDecoder], rel=0.2)
    assert planned[AdaptiveTransformersRows] > 19 * model_token_ms(model, predictor)


def model_token_ms(model, predictor) -> float:
    """The time of a token on the known device, with all units."""
    return predictor.token_ms(Workload(WIDTH, model.units.tunable, 0))
