"""The engine against transformers' loop: the same tokens, logits, plans and reports, whatever is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada.model.families import AdaLlavaMistralForCausalLM, AdaLlavaQwenForCausalLM  # noqa: F401
from llava.errors import OptionError
from llava.sampling import SamplingParams
from llava.token_clock import TokenClock

IMAGE = -200
KINDS = {"H": {}, "L": {}, "grouped": {"kind": "H", "heads": 8, "key_value_heads": 4, "rank": 1}}
KINDS |= {"biased": {"kind": "H", "attention_bias": True, "mlp_bias": True}}

words = st.integers(3, 88)
texts = st.lists(words, min_size=1, max_size=6)
budgets = st.sampled_from([None, 1.0, 0.95, 0.8, 0.7, 0.6, 0.5, 0.4])
image_tokens = st.sampled_from([None, "all", "2", "50%/25%", "all/1", "3/2"])


@pytest.fixture(scope="module", params=KINDS)
def model(request, make_llava):
    return make_llava(**{"kind": request.param, **KINDS[request.param]})


@st.composite
def rows_of(draw, size: st.SearchStrategy[int]) -> list[dict[str, Any]]:
    """Prompts with 0 to 2 images, each with its budget and its amount of image tokens."""
    made = []
    for _ in range(draw(size)):
        images = draw(st.integers(0, 2))
        ids = [1, *draw(texts)]
        for _ in range(images):
            ids.insert(draw(st.integers(1, len(ids))), IMAGE)
        made.append({"ids": ids, "images": images, "budget": draw(budgets), "tokens": draw(image_tokens)})
    return made


def ask(model: Any, rows: list[dict[str, Any]], pixels: torch.Tensor, engine: str, **keywords: Any) -> Any:
    """Ask rows as one batch, padded on the left."""
    width = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([[0] * (width - len(row["ids"])) + row["ids"] for row in rows])
    mask = torch.tensor([[0] * (width - len(row["ids"])) + [1] * len(row["ids"]) for row in rows])
    if len(rows) == 1:
        mask = None
    images = sum(row["images"] for row in rows)
    taken = pixels[torch.arange(images) % len(pixels)] if images else None
    settings = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    settings |= {"pad_token_id": 0, "token_selector": "fastv"}
    settings |= {"image_tokens": [row["tokens"] or "all" for row in rows]}
    settings |= {"latency_budget": [row["budget"] for row in rows]}
    return model.generate(ids, images=taken, attention_mask=mask, engine=engine, **{**settings, **keywords})


def assert_same(ours: Any, theirs: Any) -> None:
    """Tokens and plans are equal, logits but for the order of float32 sums."""
    assert ours.execution_plan == theirs.execution_plan
    ours_logits, expected = torch.stack(ours.logits), torch.stack(theirs.logits)
    torch.testing.assert_close(ours_logits, expected, atol=2e-4 * expected.abs().max().item(), rtol=1e-3)
    assert torch.equal(ours.sequences, theirs.sequences)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_prompt_alone_is_answered_as_by_transformers(model, pixels, data) -> None:
    rows = data.draw(rows_of(st.just(1)))
    ours, theirs = (ask(model, rows, pixels, engine) for engine in ("ada", "transformers"))
    assert_same(ours, theirs)
    assert ours.report.by_transformers is None and theirs.report.by_transformers == "asked for"
    fields = ("granted", "prefill_share", "layers", "heads", "prefill_flops", "image_tokens")
    assert [getattr(ours.report, name) for name in fields] == [getattr(theirs.report, name) for name in fields]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batch_of_rows_with_own_budgets_is_answered_as_by_transformers(model, pixels, data) -> None:
    rows = data.draw(rows_of(st.integers(2, 5)))
    assert_same(*(ask(model, rows, pixels, engine) for engine in ("ada", "transformers")))


@pytest.mark.parametrize("seed", range(4))
def test_seeded_draws_are_transformers_own(model, pixels, seed) -> None:
    row = [{"ids": [1, 17, IMAGE, 60, 7], "images": 1, "budget": 0.7, "tokens": None}]
    sampling = SamplingParams(temperature=1.3, top_p=0.9, seed=seed, max_new_tokens=12)
    ours, theirs = (
        ask(model, row, pixels, engine, **sampling.keywords(top_k=50)) for engine in ("ada", "transformers")
    )
    assert torch.equal(ours.sequences, theirs.sequences) and ours.sequences.shape == (1, 12)


def test_draws_without_a_seed_come_from_torchs_generator(model, pixels) -> None:
    row = [{"ids": [1, 17, IMAGE, 60, 7], "images": 1, "budget": None, "tokens": None}] * 2
    drawn = []
    for engine in ("ada", "transformers"):
        torch.manual_seed(3)
        sampling = {"do_sample": True, "temperature": 1.5, "top_k": 20, "max_new_tokens": 8}
        drawn.append(ask(model, row, pixels, engine, **sampling).sequences)
    assert torch.equal(*drawn)


def test_rows_end_at_their_own_end_token_and_are_padded(model, pixels) -> None:
    rows = [{"ids": [1, 5 + n, 9], "images": 0, "budget": 0.8, "tokens": None} for n in range(4)]
    free = ask(model, rows, pixels, "transformers", max_new_tokens=8).sequences
    end = int(free[1, 2])
    ours, theirs = (
        ask(model, rows, pixels, engine, max_new_tokens=8, eos_token_id=end) for engine in ("ada", "transformers")
    )
    assert torch.equal(ours.sequences, theirs.sequences) and (ours.sequences[1, 3:] == 0).all()


def test_processors_and_streamer_see_what_transformers_shows_them(model, pixels) -> None:
    seen: dict[str, list] = {}

    class Streamer:
        def __init__(self, name: str) -> None:
            self.tokens = seen.setdefault(name, [])

        def put(self, value: torch.Tensor) -> None:
            self.tokens.append(value.tolist())

        def end(self) -> None:
            self.tokens.append("end")

    row = [{"ids": [1, 17, IMAGE, 60, 7], "images": 1, "budget": 0.7, "tokens": None}]
    for engine in ("ada", "transformers"):
        ask(model, row, pixels, engine, streamer=Streamer(engine), repetition_penalty=1.5, no_repeat_ngram_size=2)
    assert seen["ada"] == seen["transformers"] and seen["ada"][-1] == "end"


def test_clock_has_a_stamp_for_each_token_and_a_cancelled_call_ends(model, pixels) -> None:
    import threading

    row = [{"ids": [1, 17, 60, 7], "images": 0, "budget": 0.7, "tokens": None}]
    clock = TokenClock()
    ask(model, row, pixels, "ada", clock=clock)
    assert len(clock.stamps) == 5 and clock.stamps == sorted(clock.stamps)
    cancelled = threading.Event()
    cancelled.set()
    assert ask(model, row, pixels, "ada", clock=TokenClock(cancelled)).sequences.shape == (1, 1)


def test_long_answer_outgrows_the_first_slots(make_llava, pixels) -> None:
    model = make_llava("H", max_position_embeddings=700)
    row = [{"ids": [1, 17, 60, 7], "images": 0, "budget": 0.7, "tokens": None}]
    ours, theirs = (ask(model, row, pixels, engine, max_new_tokens=300) for engine in ("ada", "transformers"))
    assert ours.sequences.shape == (1, 300) and torch.equal(ours.sequences, theirs.sequences)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_near_transformers(make_llava, pixels, dtype) -> None:
    model = make_llava("H").to(dtype)
    row = [{"ids": [1, 17, 60, 7], "images": 0, "budget": 0.7, "tokens": None}]
    ours, theirs = (ask(model, row, pixels, engine, max_new_tokens=1) for engine in ("ada", "transformers"))
    exact = ask(make_llava("H"), row, pixels, "transformers", max_new_tokens=1).logits[0]
    off = (theirs.logits[0] - exact).abs().max()
    assert (ours.logits[0] - exact).abs().max() <= 2 * off + 1e-3


def test_no_memory_for_narrow_layers_changes_no_answer(model, pixels) -> None:
    row = [{"ids": [1, 17, IMAGE, 60, 7], "images": 1, "budget": 0.7, "tokens": None}]
    expected = ask(model, row, pixels, "ada")
    limit, model.narrow_cache.max_bytes = model.narrow_cache.max_bytes, 0
    model.narrow_cache.clear()
    try:
        assert_same(ask(model, row, pixels, "ada"), expected)
    finally:
        model.narrow_cache.max_bytes = limit


def test_engine_that_is_none_is_refused(model, pixels) -> None:
    row = [{"ids": [1, 7], "images": 0, "budget": 0.7, "tokens": None}]
    with pytest.raises(OptionError, match="engine is 'fast'; expected one of auto, ada, transformers"):
        ask(model, row, pixels, "fast")


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [({"num_beams": 2}, "num_beams is 2"), ({"cache_implementation": "static"}, "cache_implementation is 'static'")],
)
def test_rare_settings_are_left_to_transformers_and_the_report_says_why(model, pixels, keywords, reason) -> None:
    row = [{"ids": [1, 7, 9], "images": 0, "budget": 1.0, "tokens": None}]
    out = ask(model, row, pixels, "auto", **keywords)
    assert out.report.by_transformers == reason and f"decoded by transformers: {reason}" in out.report.summary()
    with pytest.raises(OptionError, match=f"engine is 'ada', .*{reason}"):
        ask(model, row, pixels, "ada", **keywords)


@pytest.mark.parametrize("tokens", ["all", "2", "all/1", "50%/25%"])
def test_prompt_alone_is_read_by_the_engine_whatever_it_reads_of_its_images(model, pixels, tokens, monkeypatch) -> None:
    row = [{"ids": [1, 17, IMAGE, 60, 7], "images": 1, "budget": 0.7, "tokens": tokens}]

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the model's own forward reads it")

    monkeypatch.setattr(type(model.model), "forward", fail)
    assert ask(model, row, pixels, "ada").sequences.shape == (1, 5)
