"""What the scorer learns from: a batch's loss against each sample's, done the slow way from eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.errors import OptionError

IMAGE, IGNORE = -200, -100
TOKENS = 4  # of an image
# The fifth has two answers after its image: those of the last one count. The third has no image.
ROWS = [
    ([1, 17, IMAGE, 60, 61, 62, 30, 31], [IGNORE] * 5 + [62, 30, 31]),
    ([1, IMAGE, 5, 6, 7], [IGNORE, IGNORE, IGNORE, 6, 7]),
    ([1, 40, 41, 42, 43, 44], [IGNORE, 40, 41, IGNORE, IGNORE, 44]),
    ([1, IMAGE, 8, IMAGE, 9, 10, 11], [IGNORE] * 5 + [10, 11]),
    ([1, IMAGE, 8, 9, 10, 11, 12, 13], [IGNORE] * 3 + [9, IGNORE, IGNORE, 12, 13]),
]
IMAGES = [0, 1, None, (2, 3), 0]  # of the four pixels


def no_noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(shape)


def inputs_of(rows: list[int], pixels: torch.Tensor, granted: torch.Tensor) -> dict[str, Any]:
    """These samples as one batch, padded on the right."""
    width = max(len(ROWS[row][0]) for row in rows)
    chosen = [ROWS[row] for row in rows]
    used = [image for row in rows for image in (IMAGES[row] if isinstance(IMAGES[row], tuple) else [IMAGES[row]])]
    return {
        "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in chosen]),
        "labels": torch.tensor([labels + [IGNORE] * (width - len(labels)) for _, labels in chosen]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chosen]),
        "images": pixels[[image or 0 for image in used]],  # a dummy for a row without
        "granted_units": granted[rows],
        "noise": no_noise,
        "use_cache": False,
    }


def slow_loss(model: Any, row: int, pixels: torch.Tensor, granted: torch.Tensor, first_layer: int) -> tuple[Any, int]:
    """One sample's loss, and how many tokens of it are supervised; the attention as eager modules return it."""
    weights: dict[int, torch.Tensor] = {}
    states: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda _, __, out, index=index: weights.update({index: out[1]}))
        for index, layer in enumerate(model.model.layers)
    ]
    hooks.append(model.model.layers[first_layer].register_forward_pre_hook(lambda _, args: states.append(args[0])))
    out = model(**inputs_of([row], pixels, granted))
    for hook in hooks:
        hook.remove()
    ids, labels = ROWS[row]
    supervised = sum(label != IGNORE for label in labels)
    if IMAGE not in ids:
        return None, supervised
    spread, kinds = [], []  # labels and kinds of the embedded columns
    for token, label in zip(ids, labels, strict=True):
        spread += [IGNORE] * TOKENS if token == IMAGE else [label]
        kinds += [token == IMAGE] * (TOKENS if token == IMAGE else 1)
    latency = max(column for column, label in enumerate(spread) if label == IGNORE) + 1
    answer = len(spread) - latency
    queries = range(latency, latency + answer)  # the latency token predicts the first, the last predicts nothing
    image = [column for column, is_image in enumerate(kinds) if is_image]
    total = torch.zeros(len(image))
    for index, layer_weights in weights.items():
        if index < first_layer:
            continue
        for head in range(model.config.num_attention_heads):
            prefix = model.units.num_prefix_layers
            gate = 1.0
            if index >= prefix:
                group = head // (model.config.num_attention_heads // model.config.num_key_value_heads)
                gate = out.gates[0, index - prefix, 0, group].item()
            for query in queries:
                total += gate * layer_weights[0, head, query, image].detach()
    if total.sum() == 0:  # the plan skips all of these layers
        return None, supervised
    scores = model.token_scorer(states[0][0, image], states[0][0, latency])
    return -(total / total.sum() * scores.log_softmax(0)).sum(), supervised


@pytest.fixture(params=["H", "L"])
def model(request, make_llava) -> Any:
    model = make_llava(request.param, attention="eager", key_value_heads=4, token_scorer_layer=2)
    for parameter in model.token_scorer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


@pytest.mark.parametrize("first_layer", [1, 2, 4])  # before P, at P, after it
def test_loss_of_a_batch_is_the_mean_over_samples(model, pixels, first_layer) -> None:
    model.config.token_scorer_layer = first_layer
    granted = torch.tensor([1, 2, 0, 3, 1])
    out = model(**inputs_of([0, 1, 2, 3, 4], pixels, granted), learn_token_scores=True)
    losses = [slow_loss(model, row, pixels, granted, first_layer) for row in range(5)]
    with_image = [(loss * count, count) for loss, count in losses if loss is not None]
    assert len(with_image) == (4 if first_layer < 4 or model.units.kind == "H" else 2)
    expected = sum(loss for loss, _ in with_image) / sum(count for _, count in with_image)
    torch.testing.assert_close(out.loss, expected, atol=1e-5, rtol=1e-5)
    more = model(**inputs_of([0, 1, 2, 3, 4], pixels, granted), learn_token_scores=True, num_items_in_batch=100)
    torch.testing.assert_close(more.loss, sum(loss for loss, _ in with_image) / 100, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_scorer_alone(model, pixels) -> None:
    granted = torch.tensor([1, 2, 0, 3, 1])
    model(**inputs_of([0, 1, 2, 3, 4], pixels, granted), learn_token_scores=True).loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    scorer = {f"token_scorer.{name}" for name, _ in model.token_scorer.named_parameters()}
    # A constant added to all scores changes no distribution.
    assert touched >= scorer - {"token_scorer.content.bias"} and touched <= scorer


def test_batch_without_images_has_no_loss_and_can_be_learned_from(model, pixels) -> None:
    out = model(**inputs_of([2, 2], pixels, torch.tensor([1, 1, 1])), learn_token_scores=True)
    assert out.loss == 0
    out.loss.backward()
    assert model.token_scorer.content.weight.grad.abs().sum() == 0


def test_attention_kind_does_not_matter(make_llava, pixels) -> None:
    losses = []
    for attention in ("eager", "sdpa"):
        model = make_llava("H", attention=attention, token_scorer_layer=2).train()
        given = inputs_of([0, 1, 2, 3, 4], pixels, torch.tensor([1, 2, 0, 3, 1]))
        losses.append(model(**given, learn_token_scores=True).loss)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)


def test_labels_loss_is_as_without_a_scorer(make_llava, pixels) -> None:
    given = inputs_of([0, 1, 2, 3, 4], pixels, torch.tensor([1, 2, 0, 3, 1]))
    model = make_llava("H", token_scorer_layer=2).train()
    plain = make_llava("H").train()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "scorer" not in key})
    assert torch.equal(model(**given).loss, plain(**given).loss)


def test_model_without_a_scorer_and_samples_without_labels_are_refused(make_llava, pixels) -> None:
    given = inputs_of([0, 1], pixels, torch.tensor([1, 2]))
    with pytest.raises(OptionError, match="no token scorer to train; give --token_scorer_layer"):
        make_llava("H").train()(**given, learn_token_scores=True)
    without = make_llava("H").train()
    without.scheduler = None
    with pytest.raises(OptionError, match="no token scorer to train; give --token_scorer_layer"):
        without(**given, learn_token_scores=True)
    del given["labels"]
    with pytest.raises(OptionError, match="samples with labels"):
        make_llava("H", token_scorer_layer=2).train()(**given, learn_token_scores=True)
