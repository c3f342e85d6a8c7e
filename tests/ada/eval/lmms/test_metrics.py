"""What answers cost, counted by hand: 2 tokens at 10 ms after the first, 6 at 20 ms, none."""

from __future__ import annotations

from ada.eval.lmms.metrics import means, means_by_task, metrics_of

METADATA = [
    {"time_to_first_token_ms": 100, "tokens_per_second": 100.0, "new_tokens": 3, "prefill_gflops": 2.0},
    {"time_to_first_token_ms": 300, "tokens_per_second": 50.0, "new_tokens": 7, "prefill_gflops": 4.0},
    {"time_to_first_token_ms": 500, "tokens_per_second": 0.0, "new_tokens": 1, "prefill_gflops": 6.0},
]
METRICS = [metrics_of(metadata) for metadata in METADATA]
OVERALL = {"time_to_first_token_ms": 300, "ms_per_token": 17.5, "prefill_gflops": 4}


def test_metrics_of_an_answer_have_no_inter_token_latency_without_further_tokens() -> None:
    assert METRICS[0] == {"time_to_first_token_ms": 100, "later_tokens": 2, "ms_per_token": 10, "prefill_gflops": 2}
    assert "ms_per_token" not in METRICS[2]


def test_means_are_over_answers_and_inter_token_latency_over_tokens() -> None:
    assert means(METRICS) == OVERALL


def test_means_by_task_of_one_task_are_the_means() -> None:
    assert means_by_task(["a", "a", "a"], METRICS) == OVERALL


def test_means_by_task_of_several_tasks_have_each_ones_too() -> None:
    assert means_by_task(["a", "a", "b"], METRICS) == {
        **OVERALL,
        "a:time_to_first_token_ms": 200,
        "a:ms_per_token": 17.5,
        "a:prefill_gflops": 3,
        "b:time_to_first_token_ms": 500,
        "b:prefill_gflops": 6,
    }


def test_metrics_of_an_answer_have_shares_of_image_tokens_where_it_had_some() -> None:
    read = metrics_of({**METADATA[0], "image_tokens": {"all": 40, "kept": 20, "late": 10}})
    assert {**METRICS[0], "image_tokens_kept": 0.5, "image_tokens_late": 0.25} == read
    assert metrics_of({**METADATA[0], "image_tokens": {"all": 0, "kept": 0, "late": 0}}) == METRICS[0]
