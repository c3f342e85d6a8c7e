"""Answers are the same whatever narrow layers may take: in the engine, in transformers' loop, threads and batches."""

from __future__ import annotations

import threading

import pytest
import torch

from llava.serve.engine.transformers_rows import TransformersRows

IMAGE = -200
SMALL = 60_000  # bytes: less than a plan's layers take, more than one layer's
BUDGETS = (0.5, 0.6, 0.75, 0.9, 1.0)


@pytest.fixture
def limited(model):
    """``limited(bytes)``: the model with an empty cache and that limit."""
    kept = model.narrow_cache.max_bytes

    def limit(size: int):
        model.narrow_cache.clear()
        model.narrow_cache.max_bytes = size
        return model

    yield limit
    model.narrow_cache.max_bytes = kept
    model.narrow_cache.clear()


@pytest.mark.parametrize("engine", ["ada", "transformers"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_one_answer(limited, ids, pixels, ask, close, engine, budget) -> None:
    kwargs = {"images": pixels[:1], "latency_budget": budget, "engine": engine}
    expected = ask(limited(1 << 30), ids(), **kwargs)
    for limit in (0, 1, SMALL):
        out = ask(limited(limit), ids(), **kwargs)
        assert torch.equal(out.sequences, expected.sequences) and out.execution_plan == expected.execution_plan
        close(torch.stack(out.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("engine", ["ada", "transformers"])
@pytest.mark.parametrize("budgets", [[0.7, 0.7, 0.7], [0.5, 0.7, 1.0]])
def test_rows_of_a_batch(limited, ids, pixels, ask, close, engine, budgets) -> None:
    prompts = ids(*([1, 17 + row, IMAGE, 60, 7 + row] for row in range(3)))
    kwargs = {"images": pixels[:3], "latency_budget": budgets, "engine": engine}
    expected = ask(limited(1 << 30), prompts, **kwargs)
    for limit in (0, SMALL):
        out = ask(limited(limit), prompts, **kwargs)
        assert torch.equal(out.sequences, expected.sequences)
        close(torch.stack(out.logits), torch.stack(expected.logits))


def test_limit_holds_while_threads_answer_under_many_plans(limited, ids, pixels) -> None:
    jobs = [(ids([1, IMAGE, 10 + job]), 0.5 + 0.04 * job) for job in range(10)]
    settings = {"images": pixels[:1], "max_new_tokens": 5}
    model = limited(1 << 30)
    alone = [model.generate(prompt, latency_budget=budget, **settings).tolist() for prompt, budget in jobs]
    model, joint, taken = limited(SMALL), {}, []

    def work(job: int) -> None:
        prompt, budget = jobs[job]
        joint[job] = model.generate(prompt, latency_budget=budget, **settings).tolist()
        taken.append(model.narrow_cache.bytes)

    threads = [threading.Thread(target=work, args=(job,)) for job in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [joint[job] for job in range(len(jobs))] == alone
    assert max(taken) <= SMALL and (model.units.kind == "L" or max(taken) > 0)


@pytest.mark.parametrize(("read", "decoded"), [(0, 0), (SMALL, SMALL), (0, 1 << 30), (1 << 30, 0)])
@torch.no_grad()
def test_rows_of_transformers_loop_decode_as_one_batch(limited, ids, pixels, ask, close, read, decoded) -> None:
    """Rows with one plan whose layers are cut, or masked, as they are read and as they decode."""
    kwargs = {"images": pixels[:1], "latency_budget": 0.7, "planner": "even", "engine": "transformers"}
    prompts = [ids([1, IMAGE, 7]), ids([1, 17, IMAGE, 60, 7])]
    expected = [ask(limited(1 << 30), prompt, count=4, **kwargs) for prompt in prompts]
    rows = TransformersRows(limited(read))
    settings = {"do_sample": False, "return_dict_in_generate": True, **kwargs}
    running = [rows.read({"inputs": prompt, **settings})[1] for prompt in prompts]
    limited(decoded)
    for step in range(1, 4):
        logits = rows.step(running, [int(out.sequences[0, step - 1]) for out in expected])
        close(logits, torch.cat([out.logits[step] for out in expected]))
        if step == 2:  # one leaves and another comes: the first takes its cache out of the batch
            rows.remove(rows.read({"inputs": prompts[1], **settings})[1])


@pytest.mark.parametrize("limit", [0, SMALL])
def test_rows_of_other_limits_decode_as_one_batch(model_h, ids, pixels, ask, limit) -> None:
    """Of two rows with one plan, the first was cut; the limit then left no memory for the second."""
    from ada.engine.engine_rows import EngineRows

    def read(rows: EngineRows) -> torch.Tensor:
        batch, execution = model_h.begin(model_h.embed(ids(), images=pixels[:1]), model_h.grant(0.7, 1))
        return rows.read(batch, execution)

    kept = model_h.narrow_cache.max_bytes
    try:
        with torch.no_grad():
            logits = {}
            for second in (1 << 30, limit):
                model_h.narrow_cache.clear()
                model_h.narrow_cache.max_bytes = 1 << 30
                rows = EngineRows(model_h, 2, model_h.model.embed_tokens.weight)
                first = read(rows)
                model_h.narrow_cache.clear()
                model_h.narrow_cache.max_bytes = second
                tokens = torch.cat([first, read(rows)]).argmax(dim=-1)
                steps = []
                for _ in range(4):
                    steps.append(rows.step(tokens))
                    tokens = steps[-1].argmax(dim=-1)
                logits[second] = torch.stack(steps)
                if second == limit:
                    cut, masked = ([kept.heads for kept in row.plan.layers] == row.held for row in rows.rows)
                    assert cut and not masked, "a masked layer holds all of its heads"
    finally:
        model_h.narrow_cache.max_bytes = kept
        model_h.narrow_cache.clear()
    torch.testing.assert_close(logits[limit], logits[1 << 30], atol=1e-3, rtol=1e-4)
