"""Programs whose narrow layers may take little memory, and what they say of it."""

import json

import pytest
from fixtures.marks import slow_except

from ada.memory import load_warning


@pytest.fixture
def asked(root):
    """Flags of a question on the bundled model."""
    image, model = root / "playground" / "shapes" / "demo.png", root / "ada" / "checkpoints" / "shapes-H"
    return (
        *("--model-path", model, "--image-file", image, "--query", "How many shapes are there?", "--device", "cpu"),
        *("--temperature", 0, "--max_new_tokens", 6, "--latency-budget", 0.6, "--report", "json"),
    )


def test_program_answers_the_same_under_any_limit_and_names_the_flag(program, run_once, asked) -> None:
    masked = program("llava.eval.run_llava", *asked, "--narrow-cache-gb", 0)
    assert masked.returncode == 0 and "GB" not in masked.stderr, "enough is free"
    said = [masked.stdout, *(run_once(*asked, "--narrow-cache-gb", limit).out for limit in (0.003, 1))]
    answers, reports = zip(*(text.rstrip().rsplit("\n", 1) for text in said), strict=True)
    assert len(set(answers)) == 1 and len(answers[0]) > 0
    none, some, free = map(json.loads, reports)
    assert none["masked_layers"] > some["masked_layers"] > free["masked_layers"] == 0
    assert "--narrow-cache-gb 0 " in none["masking"] and "--narrow-cache-gb 0.003 " in some["masking"]
    assert none["prefill_gflops"] > some["prefill_gflops"] > free["prefill_gflops"]


@pytest.mark.parametrize(
    ("module", "value"),
    slow_except(
        [
            ("llava.serve.cli", "-1"),
            ("llava.serve.model_worker", "nan"),
            ("llava.eval.model_vqa_loader", "much"),
            ("ada.calibrate", "inf"),
        ],
        ("llava.serve.cli", "-1"),
    ),
)
def test_bad_limits_are_refused_as_programs_start(program, module, value) -> None:
    needed = ("--question-file", "q.jsonl", "--answers-file", "a.jsonl") if "vqa" in module else ()
    ran = program(module, *needed, f"--narrow-cache-gb={value}")
    assert ran.returncode == 2 and f"--narrow-cache-gb: {value!r}; expected a number of GB" in ran.stderr


def test_model_that_does_not_fit_is_a_warning_before_it_is_read(run_once, asked, monkeypatch, caplog) -> None:
    monkeypatch.setattr(load_warning, "free_bytes", lambda device: 10**7)
    assert run_once(*asked).code == 0
    [said] = [record.getMessage() for record in caplog.records if record.name == "ada.memory.load_warning"]
    assert "0.01 GB of cpu are free" in said and "--narrow-cache-gb" in said
