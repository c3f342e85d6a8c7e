"""The training path: a batch's loss, gates and gradients against one sample at a time, done the slow way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from ada.scheduling.selection import TEMPERATURE

IMAGE, IGNORE = -200, -100


def slow_sample(model: Any, slow: Any, sample: Any, units: int, pixels: torch.Tensor | None, noise: Any) -> Any:
    """One sample: (its summed loss, supervised tokens, its gates), differentiable by plain autograd throughout.

    The decoder is written out here: transformers' own attention and MLP modules, their outputs weighed by gates.
    """
    ids, labels = sample
    embeds = slow.embed(ids, pixels)
    if IMAGE in ids:
        at = ids.index(IMAGE)
        labels = labels[:at] + [IGNORE] * 4 + labels[at + 1 :]
    column = max(i for i, label in enumerate(labels) if label == IGNORE) + 1
    embeds = torch.cat([embeds[:, :column], slow.token(units), embeds[:, column:]], dim=1)
    labels = [*labels[:column], IGNORE, *labels[column:]]
    plain = slow.plain.model
    positions = torch.arange(embeds.shape[1])[None]
    rotary = plain.rotary_emb(embeds, positions)
    causal = torch.full((1, 1, len(labels), len(labels)), torch.finfo(torch.float32).min).triu(1)
    hidden, gates = embeds, None
    for index, layer in enumerate(plain.layers):
        if index == slow.P:
            gates = slow_gates(model, hidden[0, column], units, noise)
        heads, groups = (None, None) if gates is None else gates[index - slow.P]
        hidden = hidden + attention(layer, hidden, rotary, causal, heads, slow)
        hidden = hidden + mlp(layer, hidden, groups, slow)
    logits = slow.plain.lm_head(plain.norm(hidden))[0]
    targets = torch.tensor(labels[1:])
    return functional.cross_entropy(logits[:-1], targets, reduction="sum"), int((targets != IGNORE).sum()), gates


def attention(layer: Any, hidden: torch.Tensor, rotary: Any, causal: torch.Tensor, gate: Any, slow: Any) -> Any:
    """Head by head, each key-value group's heads scaled by its gate before ``o_proj``."""
    module, x = layer.self_attn, layer.input_layernorm(hidden)[0]
    cos, sin = (part[0] for part in rotary)
    width, per_group = module.head_dim, slow.config.num_attention_heads // slow.A

    def turned(y: torch.Tensor) -> torch.Tensor:
        half = width // 2
        return y * cos + torch.cat([-y[:, half:], y[:, :half]], dim=1) * sin

    q, k, v = module.q_proj(x), module.k_proj(x), module.v_proj(x)
    out = []
    for head in range(slow.config.num_attention_heads):
        group = head // per_group
        query = turned(q[:, head * width : (head + 1) * width])
        key = turned(k[:, group * width : (group + 1) * width])
        weights = torch.softmax(query @ key.T / width**0.5 + causal[0, 0], dim=-1)
        value = weights @ v[:, group * width : (group + 1) * width]
        out.append(value if gate is None else value * gate[group])
    return module.o_proj(torch.cat(out, dim=1))[None]


def mlp(layer: Any, hidden: torch.Tensor, gate: Any, slow: Any) -> torch.Tensor:
    """Channel groups scaled before ``down_proj``."""
    x = layer.post_attention_layernorm(hidden)
    x = functional.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x)
    if gate is not None:
        size, longer = divmod(x.shape[-1], slow.A)
        x = x * torch.cat([gate[a].expand(size + (a < longer)) for a in range(slow.A)])
    return layer.mlp.down_proj(x)


def slow_gates(model: Any, state: torch.Tensor, units: int, noise: Any) -> list:
    """The draws of one sample, one after another: per tunable layer a pair of gate vectors (A,)."""
    head, grid = model.scheduler.mlp_head, model.units
    scores = head.weight @ state + head.bias
    a, layers = grid.num_switches, grid.num_tunable_layers
    if grid.kind == "L":
        gates, on = torch.zeros(layers), torch.zeros(layers, dtype=torch.bool)
        for _ in range(units):
            noisy = torch.where(on, -torch.inf, scores + noise((1, layers))[0])
            soft, hard = torch.softmax(noisy / TEMPERATURE, 0), functional.one_hot(noisy.argmax(), layers)
            gates, on = gates + hard + soft - soft.detach(), on | hard.bool()
        return [(gates[n].expand(a), gates[n].expand(a)) for n in range(layers)]
    scores = scores.view(layers, 2, a)
    gates, on = [[torch.zeros(a)] * 2 for _ in range(layers)], torch.zeros(layers, 2, a, dtype=torch.bool)
    for _ in range(units):
        noisy = torch.where(on, -torch.inf, scores + noise((1, layers, 2, a))[0])
        named = int(noisy.argmax()) // (2 * a)
        soft = torch.softmax(noisy.flatten() / TEMPERATURE, 0).view(layers, -1).sum(1)
        weight = functional.one_hot(torch.tensor(named), layers) + soft - soft.detach()
        extra = noise((1, 2, a))[0]
        for component in (0, 1):
            here = (weight[:, None] * scores[:, component]).sum(0) + extra[component]
            off = torch.where(on[named, component], -torch.inf, here)
            hard = torch.zeros(a)
            hard[off.topk(grid.rank).indices] = 1
            relaxed = torch.softmax(off / TEMPERATURE, 0)
            piece = hard + relaxed - relaxed.detach()
            for layer in range(layers):
                gates[layer][component] = gates[layer][component] + weight[layer] * piece
            on = on.clone()  # autograd holds on to the old one
            on[named, component] |= hard.bool()
    return [tuple(pair) for pair in gates]


@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "H", "layers": 4, "heads": 4, "key_value_heads": 4, "rank": 2},
        {"kind": "H", "layers": 3, "heads": 4, "key_value_heads": 2, "rank": 1, "prefix": 1},
        {"kind": "L", "layers": 5},
        {"kind": "L", "layers": 4, "prefix": 1, "key_value_heads": 4, "attention": "eager"},
    ],
    ids=lambda shape: "-".join(str(v) for v in shape.values()),
)
def test_loss_gates_and_gradients_are_those_of_single_samples(
    make_llava, slow_of, pixels, samples, train_batch, noise, shape
) -> None:
    model = make_llava(**shape).train()
    model.get_vision_tower().eval()
    for seed in (1, 2):
        granted = torch.randint(0, model.units.tunable + 1, (4,), generator=torch.Generator().manual_seed(seed))
        model.zero_grad()
        out = train_batch(model, granted, seed)
        out.loss.backward()
        slow = slow_of(model)
        slow.plain.train()
        images = [pixels[:1], pixels[1:2], None, pixels[3:]]  # the third is a dummy
        alone = [
            slow_sample(model, slow, samples[row], int(granted[row]), images[row], noise(seed, row)) for row in range(4)
        ]
        loss = sum(summed for summed, _, _ in alone) / sum(count for _, count, _ in alone)
        torch.testing.assert_close(out.loss, loss, atol=1e-5, rtol=1e-5)
        for row, (_, _, gates) in enumerate(alone):
            expected = torch.stack([torch.stack(pair) for pair in gates])
            torch.testing.assert_close(out.gates[row], expected, atol=1e-6, rtol=0)
        # The slow sample's scheduler and projector are the model's own; its decoder is a copy with its own gradients.
        ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        loss.backward()
        theirs = {name: p.grad for name, p in [*model.named_parameters(), *slow.plain.named_parameters()]}
        checked = 0
        for name, gradient in ours.items():
            expected = theirs.get(name)
            if expected is None:
                expected = torch.zeros_like(gradient)
            scale = max(expected.abs().max().item(), 1e-4)
            assert (gradient - expected).abs().max() < 5e-4 * scale, name  # float32, through many large products
            checked += bool(expected.abs().max() > 0)
        assert checked > len(ours) // 2 and "scheduler.mlp_head.weight" in ours
