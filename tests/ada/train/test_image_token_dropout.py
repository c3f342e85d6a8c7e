"""Image tokens that are left out of training samples: what is drawn, and what a batch then learns from."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from accelerate.utils import send_to_device
from torch.nn import functional

from ada.image_tokens.amount import Amount, ImageTokens
from ada.image_tokens.selectors import SELECTORS
from ada.scheduling.sample_rng import Draws
from ada.scheduling.units import Units
from ada.train.arguments import AdaArguments
from ada.train.budget_training import BudgetTraining, ImageTokenTraining
from ada.train.policy import policy_of
from ada.train.recipe import Recipe, distance
from llava.errors import OptionError

IMAGE, IGNORE = -200, -100
UNITS = Units("H", num_layers=10, num_prefix_layers=2, num_switches=8, rank=2)
RECIPE = Recipe((1.0, 1.0), image_token_dropout=0.2)
# Of the four image tokens of each row's image; the third row has none.
DRAWN = [ImageTokens(Amount(share=share)) for share in (0.5, 1.0, 0.25, 0.75)]
KEPT = (2, 4, 0, 3)


def shares(recipe: Recipe, rows: int) -> torch.Tensor:
    return torch.tensor([tokens.front.share for tokens in recipe.draw_image_tokens(Draws(0, 0), rows)])


def test_half_of_the_samples_keep_all_and_the_others_are_uniform_from_the_minimum_on() -> None:
    drawn = shares(RECIPE, 8000)
    assert (drawn == 1).float().mean().item() == pytest.approx(0.5, abs=0.02)
    fewer = drawn[drawn < 1]
    assert 0.2 <= fewer.min() < 0.21 and fewer.max() > 0.99
    counts = torch.histc(fewer, bins=8, min=0.2, max=1.0) / len(fewer)
    assert counts.tolist() == pytest.approx([1 / 8] * 8, abs=0.02)


@pytest.mark.parametrize("maximum", [0.2, 0.3, 1.0])
def test_with_a_maximum_all_samples_are_uniform_up_to_it(maximum) -> None:
    drawn = shares(Recipe((1.0, 1.0), image_token_dropout=0.2, image_token_maximum=maximum), 8000)
    assert drawn.min() >= 0.2 and drawn.max() <= maximum
    assert drawn.mean().item() == pytest.approx((0.2 + maximum) / 2, abs=0.01)


@pytest.mark.parametrize("flags", [{}, {"image_token_dropout": 0.4}, {"image_token_dropout": 0.1}])
def test_maximum_that_is_none_is_refused(flags) -> None:
    maximum = 1.1 if flags.get("image_token_dropout") == 0.1 else 0.3
    with pytest.raises(OptionError, match="--image_token_maximum is"):
        AdaArguments(**flags, image_token_maximum=maximum)


def test_draws_are_the_same_however_a_step_is_cut_and_others_in_the_next_step() -> None:
    for policy in (ImageTokenTraining(RECIPE, "grid"), BudgetTraining(RECIPE, UNITS, "grid")):
        full = policy.inputs(seed=3, step=7, progress=0.5, first=0, rows=6)
        parts = [policy.inputs(3, 7, 0.5, first, 2)["image_tokens"] for first in (0, 2, 4)]
        assert full["image_tokens"] == [tokens for part in parts for tokens in part]
        assert full["token_selector"] == "grid"
        assert policy.inputs(3, 8, 0.5, 0, 6)["image_tokens"] != full["image_tokens"]
        assert policy.inputs(4, 7, 0.5, 0, 6)["image_tokens"] != full["image_tokens"]


def test_dropout_shifts_no_draw_of_units_or_noise() -> None:
    with_dropout, without = (
        BudgetTraining(Recipe((0.5, 1.0), image_token_dropout=dropout), UNITS).inputs(3, 7, 0.5, 0, 4)
        for dropout in (0.1, None)
    )
    assert set(with_dropout) - set(without) == {"image_tokens", "token_selector"}
    assert torch.equal(with_dropout["granted_units"], without["granted_units"])
    assert torch.equal(with_dropout["noise"]((4, 3)), without["noise"]((4, 3)))


def test_draws_pass_a_launcher_unchanged() -> None:
    inputs = dict(ImageTokenTraining(RECIPE).inputs(0, 0, 0.0, 0, 4))
    assert send_to_device(inputs, "cpu") == inputs


def test_trained_model_says_what_it_has_learned(make_config) -> None:
    config = make_config()
    AdaArguments(image_token_dropout=0.1, token_selector="divprune").apply(config)
    assert (config.image_token_dropout, config.token_selector) == (0.1, "divprune")
    AdaArguments(image_token_dropout=0.25).apply(config)
    assert (config.image_token_dropout, config.token_selector) == (0.25, "salient")
    assert config.model_type == "llava_llama" and not hasattr(config, "scheduler_type")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"image_token_dropout": 0.0}, "--image_token_dropout is 0.0; expected a share"),
        ({"image_token_dropout": 1.0}, "--image_token_dropout is 1.0; expected a share"),
        ({"image_token_dropout": float("nan")}, "--image_token_dropout is nan; expected a share"),
        ({"image_token_dropout": 0.1, "token_selector": "best"}, "the token selector is 'best'"),
        ({"token_selector": "grid"}, "--token_selector is 'grid', which needs --image_token_dropout"),
    ],
)
def test_flags_that_cannot_be_used(flags, message) -> None:
    with pytest.raises(OptionError, match=message):
        AdaArguments(**flags)


# The models: an adaptive one that trains at full budget, without noise, and plain ones.


@pytest.fixture(scope="module")
def make_plain(make_config, tower_folder):
    """``make_plain(class name)``: a plain LLaVA with random weights that leaves image tokens out, and its policy."""
    from llava import model as families

    def make(name: str = "LlavaLlamaForCausalLM", attention: str = "sdpa") -> tuple[Any, Any]:
        kind = getattr(families, name)
        sizes = {"vocab_size": 90, "num_hidden_layers": 3, "num_key_value_heads": 2, "attn_implementation": attention}
        torch.manual_seed(2)
        model = kind(make_config(kind.config_class, **sizes, mm_vision_tower=str(tower_folder), sliding_window=None))
        model.get_vision_tower().load_model()
        return model.train(), policy_of(model, AdaArguments(image_token_dropout=0.25))

    return make


def row_alone(model: Any, ids: list[int], labels: list[int], pixels: torch.Tensor, keep: int) -> Any:
    """One sample by hand: (logits, labels) of the positions that stay, from the decoder on embeddings."""
    inner, at = model.get_model(), ids.index(IMAGE)
    features = model.encode_images(pixels)[0]
    cosine = functional.cosine_similarity(features, features.mean(0, keepdim=True), dim=-1)
    stay = sorted(cosine.argsort()[:keep].tolist())
    text = inner.embed_tokens(torch.tensor([i if i != IMAGE else 0 for i in ids]))
    embeds = torch.cat([text[:at], features[stay], text[at + 1 :]])
    columns = [*range(at), *(at + i for i in stay), *range(at + len(features), at + len(features) + len(ids) - at - 1)]
    kept = [*labels[:at], *[IGNORE] * keep, *labels[at + 1 :]]
    mask = torch.ones(1, len(kept), dtype=torch.long)
    out = inner(inputs_embeds=embeds[None], position_ids=torch.tensor([columns]), attention_mask=mask, use_cache=False)
    return model.lm_head(out.last_hidden_state)[0], torch.tensor(kept)


@pytest.mark.parametrize("name", ["LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaQwenForCausalLM"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_plain_loss_is_the_mean_over_single_samples(make_plain, samples, batch, pixels, name, attention) -> None:
    model, _ = make_plain(name, attention)
    out = model(**batch, images=pixels, image_tokens=DRAWN, use_cache=False)
    losses = []
    for row, ((ids, labels), keep) in enumerate(zip(samples, KEPT, strict=True)):
        if IMAGE in ids:
            logits, kept = row_alone(model, ids, labels, pixels[row : row + 1], keep)
        else:
            logits, kept = model(torch.tensor([ids])).logits[0], torch.tensor(labels)
        torch.testing.assert_close(out.logits[row, : len(kept)], logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(out.labels[row, : len(kept)], kept)
        assert (out.labels[row, len(kept) :] == IGNORE).all(), "padding is on the right, and no one learns from it"
        losses.append(functional.cross_entropy(logits[:-1], kept[1:], reduction="none")[kept[1:] != IGNORE])
    torch.testing.assert_close(out.loss, torch.cat(losses).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["H", "L"])
def test_loss_under_budgets_is_the_mean_over_single_samples(make_llava, samples, pixels, batch, noise, kind) -> None:
    model = make_llava(kind).train()
    granted = torch.tensor([0, 1, 2, 3])
    drawn = {"image_tokens": DRAWN, "granted_units": granted, "noise": noise(5)}
    out = model(**batch, images=pixels, **drawn, use_cache=False)
    total, count = torch.zeros(()), 0
    for row, (ids, labels) in enumerate(samples):
        own = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels]), "images": pixels[row : row + 1]}
        drawn = {"image_tokens": DRAWN[row], "granted_units": granted[row : row + 1], "noise": noise(5, row)}
        alone = model(**own, **drawn, use_cache=False)
        tokens = sum(label != IGNORE for label in labels)
        total, count = total + alone.loss * tokens, count + tokens
        assert alone.labels[alone.labels != IGNORE].tolist() == [label for label in labels if label != IGNORE]
    torch.testing.assert_close(out.loss, total / count, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("selector", SELECTORS)
def test_any_selector_trains_a_batch_as_its_single_samples(make_plain, samples, batch, pixels, selector) -> None:
    model, _ = make_plain()
    drawn = {"token_selector": selector, "use_cache": False}
    out = model(**batch, images=pixels, image_tokens=DRAWN, **drawn)
    total, count = torch.zeros(()), 0
    for row, (ids, labels) in enumerate(samples):
        own = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels]), "images": pixels[row : row + 1]}
        alone = model(**own, image_tokens=DRAWN[row], **drawn)
        tokens = sum(label != IGNORE for label in labels)
        total, count = total + alone.loss * tokens, count + tokens
        supervised = [label for label in labels if label != IGNORE]
        assert alone.labels[alone.labels != IGNORE].tolist() == supervised
        assert out.labels[row][out.labels[row] != IGNORE].tolist() == supervised
    torch.testing.assert_close(out.loss, total / count, atol=1e-5, rtol=1e-5)
    out.loss.backward()
    assert model.get_model().mm_projector[0].weight.grad.abs().sum() > 0


def test_gradients_reach_the_projector_through_fewer_tokens(make_plain, batch, pixels) -> None:
    model, _ = make_plain()
    gradients = []
    for tokens in (DRAWN, "all"):
        model.zero_grad()
        model(**batch, images=pixels, image_tokens=tokens, use_cache=False).loss.backward()
        gradients.append([p.grad.clone() for p in model.get_model().mm_projector.parameters()])
        assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients[-1])
    assert not torch.allclose(gradients[0][0], gradients[1][0])


def test_samples_without_an_image_are_not_touched(make_plain, batch, pixels) -> None:
    model, _ = make_plain()
    for tokens in ("25%", DRAWN):
        fewer = model(**batch, images=pixels, image_tokens=tokens, use_cache=False)
        full = model(**batch, images=pixels, use_cache=False)
        torch.testing.assert_close(fewer.logits[2, :6], full.logits[2, :6], atol=1e-5, rtol=1e-5)
    alone = {key: values[2:3, :6] for key, values in batch.items()}
    without = model(**alone, image_tokens="25%", use_cache=False)
    torch.testing.assert_close(without.logits, model(**alone, use_cache=False).logits)


def test_each_of_several_images_keeps_its_share(make_plain, pixels) -> None:
    model, _ = make_plain()
    ids, labels = torch.tensor([[1, IMAGE, 5, IMAGE, 6, 7, 8]]), torch.tensor([[IGNORE] * 5 + [7, 8]])
    out = model(ids, labels=labels, images=pixels[:2], image_tokens="50%", use_cache=False)
    assert out.logits.shape[1] == 5 + 2 + 2
    assert out.labels[0].tolist() == [IGNORE] * 7 + [7, 8]


def test_plain_model_without_fewer_tokens_is_itself(make_plain, batch, pixels) -> None:
    from llava.model import LlavaLlamaForCausalLM

    model, policy = make_plain()
    assert isinstance(policy, ImageTokenTraining) and isinstance(model, LlavaLlamaForCausalLM)
    assert type(model).__name__ == "LlavaLlamaForCausalLM", "which config.json states"
    adapted = model(**batch, images=pixels, use_cache=False)
    all_tokens = model(**batch, images=pixels, image_tokens="all", use_cache=False)
    keys = set(model.state_dict())
    model.__class__ = LlavaLlamaForCausalLM
    plain = model(**batch, images=pixels, use_cache=False)
    assert torch.equal(adapted.logits, plain.logits) and torch.equal(all_tokens.logits, plain.logits)
    assert set(model.state_dict()) == keys and not any("scheduler" in key for key in keys)


def test_peft_model_around_a_plain_one_leaves_tokens_out(make_plain, batch, pixels) -> None:
    from llava.model import LlavaLlamaForCausalLM

    model, _ = make_plain()
    expected = model(**batch, images=pixels, image_tokens=DRAWN, use_cache=False).loss
    model.__class__ = LlavaLlamaForCausalLM
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).train()
    policy = policy_of(adapted, AdaArguments(image_token_dropout=0.25))
    drawn = {**policy.inputs(0, 0, 0.0, 0, 4), "image_tokens": DRAWN}
    loss = adapted(**batch, images=pixels, **drawn, use_cache=False).loss
    torch.testing.assert_close(loss, expected)  # a new adapter adds nothing
    loss.backward()
    learned = [p.grad for name, p in adapted.named_parameters() if "lora_B" in name and p.grad is not None]
    assert len(learned) == 3 and all(gradient.abs().sum() > 0 for gradient in learned)  # one a decoder layer


def test_embeddings_of_which_tokens_are_to_be_left_out_are_refused(make_plain) -> None:
    model, _ = make_plain()
    with pytest.raises(OptionError, match="image_tokens needs input_ids"):
        model(inputs_embeds=torch.zeros(1, 4, 32), image_tokens="50%")


def test_plain_model_that_keeps_all_tokens_gets_no_policy(make_plain) -> None:
    model, _ = make_plain()
    assert policy_of(model, AdaArguments()) is None


def test_decoder_without_positions_is_refused(make_config) -> None:
    from llava.model import LlavaMptForCausalLM

    sizes = {"d_model": 32, "n_heads": 2, "n_layers": 1, "vocab_size": 90, "mm_vision_tower": None}
    model = LlavaMptForCausalLM(LlavaMptForCausalLM.config_class(**sizes))
    with pytest.raises(OptionError, match=r"--image_token_dropout needs one of .* this model is LlavaMptForCausalLM"):
        policy_of(model, AdaArguments(image_token_dropout=0.1))


# Distillation: the teacher reads all tokens.


def test_distance_takes_a_teacher_of_other_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 6, 5, generator=generator)
    labels = torch.tensor([[IGNORE, IGNORE, IGNORE, 3, IGNORE, 1]])
    kept = [0, 2, 3, 4, 5]  # the second position was left out of the student's
    student = torch.randn(1, 5, 5, generator=generator)
    full = torch.zeros(1, 6, 5)
    full[:, kept] = student
    expected = distance(full, teacher, labels)
    found = distance(student, teacher, labels[:, kept], teacher_labels=labels)
    torch.testing.assert_close(found, expected)
    assert distance(teacher[:, kept], teacher, labels[:, kept], teacher_labels=labels).item() == pytest.approx(0)


def test_teacher_of_a_plain_model_reads_all_tokens(make_plain, batch, pixels) -> None:
    model, _ = make_plain()
    policy = policy_of(model, AdaArguments(image_token_dropout=0.25, distillation_weight=0.5))
    inputs = {**batch, "images": pixels, "image_tokens": DRAWN, "token_selector": "grid"}
    (term,) = policy.loss_terms(model, inputs)
    outputs = model(**inputs)
    full = model(**batch, images=pixels)
    divergence = 0.0
    for row in range(4):
        ours, theirs = (
            functional.log_softmax(logits[row, :-1][own[row, 1:] != IGNORE], -1)
            for logits, own in ((outputs.logits, outputs.labels), (full.logits, full_labels(model, batch, pixels)))
        )
        divergence += (theirs.exp() * (theirs - ours)).sum()
    supervised = (batch["labels"] != IGNORE).sum()
    assert divergence > 0.01
    torch.testing.assert_close(term(outputs, None), 0.5 * divergence / supervised, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(term(outputs, 40.0), 0.5 * divergence / 40.0, atol=1e-5, rtol=1e-4)
    term(outputs, None).backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def full_labels(model: Any, batch: dict, pixels: torch.Tensor) -> torch.Tensor:
    return model.embed(batch["input_ids"], batch["attention_mask"], labels=batch["labels"], images=pixels).labels


def test_teacher_under_budgets_has_full_budget_and_all_tokens(make_llava, batch, pixels, noise) -> None:
    model = make_llava("H", seed=3).train()
    policy = BudgetTraining(Recipe((0.5, 1.0), distillation=1.0, image_token_dropout=0.25), model.units, "salient")
    drawn = {"granted_units": torch.tensor([0, 1, 2, 3]), "noise": noise(1)}
    inputs = {**batch, "images": pixels, **drawn, "image_tokens": DRAWN, "token_selector": "salient"}
    (term,) = policy.loss_terms(model, inputs)
    at_full = model(**batch, images=pixels, latency_budget=1.0)
    assert term(at_full, None).item() == pytest.approx(0, abs=1e-6)
    assert term(model(**inputs), None) > 0.01
