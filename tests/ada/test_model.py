"""The whole model: exact without a plan, true to the method under one, in every way of generating."""

from __future__ import annotations

import copy
import random
import threading
from typing import Any

import pytest
import torch

from ada.budget import LatencyBudget
from ada.latency_token import Sequence
from ada.plan import ExecutionPlan
from llava.errors import OptionError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

IMAGE = -200
PROMPT = [1, 17, 33, IMAGE, 60, 70, 31, 7]
KINDS = ("H", "L")


def ids(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows or [PROMPT])


def switches(plan: ExecutionPlan) -> set[tuple[int, int, int]]:
    return {tuple(x) for x in plan.gates().nonzero().tolist()}


def ask(model: Any, prompt: torch.Tensor, count: int = 5, **kwargs: Any) -> Any:
    settings = {"max_new_tokens": count, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    return model.generate(prompt, **{**settings, **kwargs})


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Float32 sums in another order."""
    torch.testing.assert_close(ours, expected, atol=2e-4 * expected.abs().max().item(), rtol=1e-4)


@pytest.fixture(scope="module")
def model_h(make_llava):
    return make_llava("H")


@pytest.fixture(scope="module")
def model_l(make_llava):
    return make_llava("L")


@pytest.fixture(scope="module", params=KINDS)
def model(request, model_h, model_l):
    return model_h if request.param == "H" else model_l


def prompt_with_token(model, prompt: torch.Tensor, images: Any) -> torch.Tensor:
    """Spliced embeddings with the latency token of a full budget behind them (1, T + 1, D)."""
    embeds = model._embed(prompt, None, None, None, images, None).embeds
    full = torch.tensor([model.units.tunable / (model.units.tunable + 1)])
    return torch.cat([embeds, model.scheduler.encode(full)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_plan_and_a_full_budget_are_bit_equal_to_plain_models(
    make_llava, plain_of, pixels, kind, attention, dtype
) -> None:
    model = make_llava(kind, attention=attention).to(dtype)
    transformers_own = plain_of(model)
    config = LlavaConfig(**{**model.config.to_dict(), "model_type": "llava_llama"}, attn_implementation=attention)
    plain = LlavaLlamaForCausalLM(config)
    plain.get_vision_tower().load_model()
    plain.to(dtype).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = pixels[:1].to(dtype)

    spliced = model._embed(ids(), None, None, None, images, None).embeds
    expected = transformers_own(inputs_embeds=spliced).logits
    assert torch.equal(plain(ids(), images=images).logits, expected)
    assert torch.equal(model(ids(), images=images).logits, expected), "no budget: no latency token, no plan"

    with_token = prompt_with_token(model, ids(), images)
    expected = transformers_own(inputs_embeds=with_token).logits
    assert torch.equal(model(ids(), images=images, latency_budget=1.0).logits, expected)
    settings = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    reference = transformers_own.generate(
        inputs_embeds=with_token, attention_mask=torch.ones(with_token.shape[:2]), eos_token_id=None, **settings
    )
    for budget in (1.0, None):
        ours = model.generate(ids(), images=images, latency_budget=budget, **settings)
        assert torch.equal(ours.sequences, reference.sequences)
        assert all(torch.equal(a, b) for a, b in zip(ours.logits, reference.logits, strict=True))


@torch.no_grad()
@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "H"},
        {"kind": "H", "rank": 1, "prefix": 1},
        {"kind": "H", "rank": 8, "prefix": 3},
        {"kind": "H", "heads": 4, "key_value_heads": 4, "rank": 4, "layers": 7, "prefix": 3},
        {"kind": "H", "heads": 2, "key_value_heads": 2, "rank": 1, "prefix": 3},
        {"kind": "H", "key_value_heads": 4, "rank": 2},
        {"kind": "H", "key_value_heads": 2, "rank": 1, "prefix": 1},
        {"kind": "H", "head_dim": 16, "rank": 2},
        {"kind": "L"},
        {"kind": "L", "prefix": 1, "layers": 8},
        {"kind": "L", "key_value_heads": 2, "prefix": 3},
        {"kind": "H", "attention": "eager", "key_value_heads": 4, "rank": 1},
    ],
    ids=lambda shape: "-".join(str(v) for v in shape.values()),
)
def test_plans_logits_and_tokens_are_those_of_the_slow_version(make_llava, slow_of, pixels, shape) -> None:
    """Another seed for each shape; prompts of several lengths, with no, one and three pictures."""
    draw = random.Random(str(shape))
    model = make_llava(**shape, seed=draw.randrange(1000))
    slow, seen = slow_of(model), set()
    for count in (0, 1, 3):
        prompt = [1] + [draw.randrange(3, 90) for _ in range(draw.randrange(1, 9))]
        for _ in range(count):
            prompt.insert(draw.randrange(len(prompt) + 1), IMAGE)
        images = pixels[:count] if count else None
        embeds = slow.embed(prompt, images)
        for budget in (0.01, draw.randrange(60, 100) / 100, draw.randrange(80, 101) / 100):
            on, tokens, first = slow.generate(embeds, budget, 3)
            out = ask(model, ids(prompt), 3, images=images, latency_budget=budget)
            assert switches(out.execution_plan) == on
            assert out.sequences[0].tolist() == tokens
            close(out.logits[0][0], first)
            seen.add(frozenset(on))
    assert len(seen) > 2, "the prompts and budgets must lead to several plans"


@torch.no_grad()
def test_masked_and_narrow_agree_in_prefill_and_decode(model, pixels) -> None:
    generator = torch.Generator().manual_seed(3)
    for case in range(6):
        prompt = torch.randint(3, 90, (1, 4 + case), generator=generator)
        granted = torch.randint(0, model.units.tunable + 1, (1,), generator=generator)
        sequence = model._embed(prompt, None, None, None, None, None)
        logits = {}
        for narrow in (True, False):
            torch.manual_seed(case)  # the random planner draws the same plan twice
            begun, execution = model.begin(sequence, granted, "random", narrow=narrow)
            out = model(inputs_embeds=begun.embeds, execution=execution, use_cache=True)
            steps = [out.logits]
            for token in (5, 6, 7):
                step = torch.tensor([[token]])
                out = model(step, execution=execution, past_key_values=out.past_key_values, use_cache=True)
                steps.append(out.logits)
            logits[narrow] = torch.cat(steps, dim=1)
        close(logits[True], logits[False])


@torch.no_grad()
def test_each_row_of_a_batch_has_its_own_budget_and_equals_itself_alone(model, pixels) -> None:
    prompts = [PROMPT, [1, IMAGE, 9], [1, 5, 6, 7, 8, IMAGE, IMAGE, 4], [1, 2, 3, 4]]
    budgets = [0.7, "95%", LatencyBudget(1.0), 0.5]
    owned = [pixels[:1], pixels[1:2], pixels[2:4], None]
    width = max(map(len, prompts))
    for side in ("left", "right"):
        mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts])
        batch = torch.tensor([p + [0] * (width - len(p)) for p in prompts])
        if side == "left":
            mask, batch = mask.flip(1), torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        # The last row has no tag; a dummy picture stands for it, as in training.
        images = torch.cat([pixels, pixels[:1]])
        out = ask(model, batch, images=images, attention_mask=mask, latency_budget=budgets)
        for row, prompt in enumerate(prompts):
            alone = ask(model, ids(prompt), images=owned[row], latency_budget=budgets[row])
            assert out.execution_plan[row] == alone.execution_plan
            assert out.sequences[row].tolist() == alone.sequences[0].tolist()
            close(torch.stack(out.logits)[:, row], torch.stack(alone.logits)[:, 0])
            for field in ("requested", "granted", "budget_met", "layers", "heads", "neuron_groups"):
                assert getattr(out.report[row], field) == getattr(alone.report, field)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_answers_as_an_unpadded_one(model, pixels, side) -> None:
    alone = ask(model, ids(), images=pixels[:1], latency_budget=0.75)
    padding = torch.zeros(1, 3, dtype=torch.long)
    parts = [padding, ids()] if side == "left" else [ids(), padding]
    mask = torch.cat([torch.zeros_like(p) if p is padding else torch.ones_like(p) for p in parts], dim=1)
    out = ask(model, torch.cat(parts, dim=1), images=pixels[:1], attention_mask=mask, latency_budget=0.75)
    assert out.execution_plan == alone.execution_plan and torch.equal(out.sequences, alone.sequences)
    # The same through forward, where the token stands behind the row's last real position.
    given = {"images": pixels[:1], "latency_budget": 0.75}
    logits = model(torch.cat(parts, dim=1), attention_mask=mask, **given).logits
    expected = model(ids(), **given).logits
    width = expected.shape[1]
    close(logits[:, :width], expected)  # the splice puts all padding on the right


@torch.no_grad()
def test_beams_samples_and_caches(model, pixels) -> None:
    kwargs = {"images": pixels[:1], "latency_budget": 0.7}
    greedy = ask(model, ids(), **kwargs)
    for other in ({"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(ask(model, ids(), **kwargs, **other).sequences, greedy.sequences), other
    several = ask(model, ids(), **kwargs, num_beams=3, num_return_sequences=2)
    assert torch.equal(several.sequences, slow_beams(model, pixels[:1], 0.7)), "beams of the same cut model"
    assert several.execution_plan == greedy.execution_plan
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        out = ask(model, ids(), **kwargs, do_sample=True, temperature=2.0, num_return_sequences=3)
        drawn.append(out.sequences)
        assert out.execution_plan == greedy.execution_plan
    assert torch.equal(*drawn) and len({tuple(row) for row in drawn[0].tolist()}) > 1


def slow_beams(model, images, budget) -> torch.Tensor:
    """Beam search over a deep copy whose switched-off columns are zero, at a full budget's plan."""
    plan = ask(model, ids(), images=images, latency_budget=budget).execution_plan
    twin = copy.deepcopy(model)
    for layer, on in zip(twin.model.layers, plan.gates(), strict=True):
        for sort, linear in enumerate((layer.self_attn.o_proj, layer.mlp.down_proj)):
            size, longer = divmod(linear.in_features, plan.num_switches)
            sizes = torch.tensor([size + (a < longer) for a in range(plan.num_switches)])
            linear.weight.data *= on[sort].repeat_interleave(sizes)
    twin.grant = lambda *_: model.grant(budget, 1)  # the same latency token
    sequence = model._embed(ids(), None, None, None, images, None)
    begun, _ = twin.begin(sequence, model.grant(budget, 1))
    out = super(LlavaLlamaForCausalLM, twin).generate(
        inputs_embeds=begun.embeds, max_new_tokens=5, do_sample=False, num_beams=3, num_return_sequences=2
    )
    return out


@torch.no_grad()
def test_threads_answer_as_one_by_one(model, pixels) -> None:
    jobs = [(ids([1, IMAGE, 10 + job]), 0.4 + 0.05 * job) for job in range(12)]
    alone = [model.generate(p, images=pixels[:1], latency_budget=b, max_new_tokens=6) for p, b in jobs]
    together: list[Any] = [None] * len(jobs)
    model.narrow_cache.clear()
    model.narrow_cache.max_bytes, kept = 1, model.narrow_cache.max_bytes  # every thread throws out the others' layers

    def work(index: int) -> None:
        prompt, budget = jobs[index]
        together[index] = model.generate(prompt, images=pixels[:1], latency_budget=budget, max_new_tokens=6)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.narrow_cache.max_bytes = kept
    assert [x.tolist() for x in together] == [x.tolist() for x in alone]


@torch.no_grad()
def test_all_tunable_layers_off_is_the_prefix_alone(model, plain_of, pixels) -> None:
    out = model(ids(), images=pixels[:1], latency_budget=0.001, output_hidden_states=True)
    assert out.execution_plan.layers_run == 2 and not out.report.budget_met
    prefix = plain_of(model)
    prefix.model.layers = prefix.model.layers[:2]
    token = model.scheduler.encode(torch.zeros(1))
    embeds = torch.cat([model._embed(ids(), None, None, None, pixels[:1], None).embeds, token], dim=1)
    expected = prefix(inputs_embeds=embeds, output_hidden_states=True)
    assert torch.equal(out.logits, expected.logits)
    assert len(out.hidden_states) == 6, "an entry for every layer, the skipped ones too"
    for ours, theirs in zip(out.hidden_states[:2], expected.hidden_states[:2], strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(state, out.hidden_states[2]) for state in out.hidden_states[3:5])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_without_tunable_layers_every_budget_runs_all(make_llava, pixels, kind, tmp_path) -> None:
    model = make_llava(kind, prefix=5)
    outputs = [ask(model, ids(), images=pixels[:1], latency_budget=b) for b in (0.3, 1.0)]
    assert torch.equal(outputs[0].sequences, outputs[1].sequences)
    assert outputs[0].execution_plan == ExecutionPlan.full(5, 8)
    assert (outputs[0].report.budget_met, outputs[1].report.budget_met) == (False, True)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    again.get_vision_tower().load_model()
    assert torch.equal(ask(again, ids(), images=pixels[:1]).sequences, outputs[0].sequences)


@torch.no_grad()
def test_what_generate_and_forward_carry(model, pixels) -> None:
    out = ask(model, ids(), images=pixels[:1], latency_budget="70%")
    assert out.execution_plan.to_json() == ExecutionPlan.from_json(out.execution_plan.to_json()).to_json()
    report = out.report
    assert report.requested == 0.7 and report.granted <= 0.7 and report.budget_met
    assert report.granted == pytest.approx(out.execution_plan.share)
    assert report.prompt_tokens == len(PROMPT) - 1 + 4 + 1
    forward = model(ids(), images=pixels[:1], latency_budget=0.7)
    assert forward.execution_plan == out.execution_plan and forward.logits.shape[1] == report.prompt_tokens
    close(forward.logits[:, -1], out.logits[0])
    assert isinstance(model.generate(ids(), images=pixels[:1], latency_budget=0.7, max_new_tokens=1), torch.Tensor)
    assert isinstance(model(ids(), images=pixels[:1], latency_budget=0.7, return_dict=False), tuple)


def test_budgets_may_be_tensors_arrays_and_numbers_of_any_sort(model, pixels) -> None:
    import numpy as np

    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.75).execution_plan
    for budget in ("0.75", "75%", [0.75], (LatencyBudget(0.75),), np.float32(0.75), np.array([0.75])):
        assert ask(model, ids(), images=pixels[:1], latency_budget=budget).execution_plan == expected
    for budget in (torch.tensor(0.75), torch.tensor([0.75], dtype=torch.bfloat16)):
        assert ask(model, ids(), images=pixels[:1], latency_budget=budget).execution_plan == expected
    assert torch.equal(
        model.generate(input_ids=ids(), images=pixels[:1], latency_budget=0.75, max_new_tokens=3),
        model.generate(ids(), images=pixels[:1], latency_budget=0.75, max_new_tokens=3),
    )


@pytest.mark.parametrize("budget", [0, 0.0, -0.5, 1.01, float("nan"), "fast", True, "850ms", [0.5, 0.5], [], [0.0], {}])
def test_wrong_budgets_raise_in_generate_and_forward(model_h, pixels, budget) -> None:
    for call in (model_h.generate, model_h):
        with pytest.raises(OptionError, match="budget"):
            call(ids(), images=pixels[:1], latency_budget=budget)


def test_strict_budgets_are_refused_with_the_least_that_can_be_had(make_llava, pixels) -> None:
    model = make_llava("L", layers=7, prefix=3)  # the least is 3/7, which no decimal is
    ask(model, ids(), images=pixels[:1], latency_budget=0.1)
    with pytest.raises(OptionError, match=r"0\.1 .*least reachable budget is 0\.4286"):
        ask(model, ids(), images=pixels[:1], latency_budget=0.1, strict_latency_budget=True)
    out = ask(model, ids(), images=pixels[:1], latency_budget=0.4286, strict_latency_budget=True)
    assert out.report.budget_met and out.execution_plan.layers_run == 3
    with pytest.raises(OptionError, match="least reachable"):
        ask(model, ids([1, 4], [1, 5]), latency_budget=[0.9, 0.2], strict_latency_budget=True)


def test_generating_in_training_mode_plans_as_in_evaluation(model, pixels) -> None:
    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    model.train()
    try:
        out = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    finally:
        model.eval()
    assert out.execution_plan == expected.execution_plan and torch.equal(out.sequences, expected.sequences)


def test_inference_mode_leaves_nothing_behind_that_others_cannot_use(model_h, pixels) -> None:
    model_h.narrow_cache.clear()
    kwargs = {"images": pixels[:1], "latency_budget": 0.7, "max_new_tokens": 3}
    with torch.inference_mode():
        first = model_h.generate(ids(), **kwargs)
    assert torch.equal(model_h.generate(ids(), **kwargs), first)
    with torch.no_grad():
        model_h.narrow_cache.max_bytes, kept = 1, model_h.narrow_cache.max_bytes
        for budget in (0.6, 0.8, 0.9):  # new plans are gathered into the buffers of old ones
            model_h(ids(), images=pixels[:1], latency_budget=budget)
        model_h.narrow_cache.max_bytes = kept
    model_h(ids(), images=pixels[:1], latency_budget=0.7).logits.sum().backward()
    model_h.zero_grad()


def test_gradients_in_evaluation_mode_are_those_of_the_masked_model(model, pixels) -> None:
    gradients = []
    for narrow in (True, False):
        sequence = model._embed(ids(), None, None, None, pixels[:1], None)
        begun, execution = model.begin(sequence, model.grant(0.75, 1), narrow=narrow)
        model(inputs_embeds=begun.embeds, execution=execution).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    tunable = [name for name in gradients[0] if "layers.3" in name or "layers.4" in name or "layers.2" in name]
    assert tunable, "the layers that run narrow learn too"
    for name in gradients[0]:
        expected = gradients[1][name]
        torch.testing.assert_close(gradients[0][name], expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


def test_a_copy_of_a_model_answers_the_same(model, pixels) -> None:
    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    twin = copy.deepcopy(model)
    assert torch.equal(ask(twin, ids(), images=pixels[:1], latency_budget=0.7).sequences, expected.sequences)
    assert twin.narrow_cache is not model.narrow_cache


def test_embeddings_are_taken_by_forward_and_refused_by_generate(model, pixels) -> None:
    embeds = model._embed(ids(), None, None, None, pixels[:1], None).embeds
    out = model(inputs_embeds=embeds, latency_budget=0.7)
    close(out.logits, model(ids(), images=pixels[:1], latency_budget=0.7).logits)
    with pytest.raises(OptionError, match="inputs_embeds"):
        model.generate(inputs_embeds=embeds)
    with pytest.raises(OptionError, match="token ids"):
        model.generate()
    assert isinstance(model.begin(Sequence(embeds, None, None, None), model.grant(0.7, 1))[0], Sequence)
