"""A slow, obvious reading of the method, to compare with; the models are those of fixtures/tiny_models.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ada.model.families import make_adaptive
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model import LlavaLlamaForCausalLM

SIDE = 28  # pixels, as make_llava's tower takes them
IMAGE = -200  # the image tag's id


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    """Pixels of four images (4, 3, S, S)."""
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="session")
def plain_of() -> Callable[[AdaLlavaLlamaForCausalLM], LlamaForCausalLM]:
    """transformers' own language model with the same weights and the same kind of attention."""

    def make(model: AdaLlavaLlamaForCausalLM) -> LlamaForCausalLM:
        fields = {k: v for k, v in model.config.to_dict().items() if k in LlamaConfig().to_dict()}
        config = LlamaConfig(**{**fields, "model_type": "llama"}, attn_implementation=model.config._attn_implementation)
        plain = LlamaForCausalLM(config)
        ours = model.state_dict()
        plain.load_state_dict({key: ours[key] for key in plain.state_dict()})
        return plain.to(model.dtype).eval()

    return make


class SlowAda:
    """The method read literally: one prompt, one switch, one token at a time, on transformers' own model.

    What does not run has its columns of ``o_proj`` and ``down_proj`` set to zero; nothing is cached.
    """

    def __init__(self, model: AdaLlavaLlamaForCausalLM, plain: LlamaForCausalLM) -> None:
        self.model, self.plain, self.config = model, plain, model.config
        self.L, self.P = self.config.num_hidden_layers, self.config.num_prefix_layers
        self.A = self.config.num_key_value_heads
        self.per_layer = 1 if self.config.scheduler_type == "L" else self.A // self.config.scheduler_rank

    def embed(self, ids: list[int], pixels: torch.Tensor | None = None) -> torch.Tensor:
        """Token ids with image tags -> (1, T, D)."""
        features = [] if pixels is None else list(self.model.encode_images(pixels))
        table = self.plain.model.embed_tokens.weight
        return torch.cat([features.pop(0) if i == IMAGE else table[i][None] for i in ids])[None]

    def granted(self, budget: float) -> int:
        """Tunable units under a budget."""
        return max(0, math.floor(self.L * self.per_layer * budget) - self.P * self.per_layer)

    def token(self, units: int) -> torch.Tensor:
        """The latency token (1, 1, D)."""
        u = units / ((self.L - self.P) * self.per_layer + 1)
        angles = [2 * math.pi * u / 10000 ** (i / 128) for i in range(128)]
        encoding = torch.tensor([math.sin(x) for x in angles] + [math.cos(x) for x in angles])
        w = dict(self.model.scheduler.scheduler_up_proj.net.named_parameters())
        x = (encoding - encoding.mean()) / (encoding.var(unbiased=False) + 1e-5).sqrt()
        x = x * w["0.weight"] + w["0.bias"]
        x = w["1.weight"] @ x + w["1.bias"]
        x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        return (w["3.weight"] @ x + w["3.bias"])[None, None]

    def scores(self, embeds: torch.Tensor) -> list[float]:
        """The scheduler's logits, read from the last position before layer P."""
        prefix = copy.copy(self.plain.model)
        prefix._modules = {**prefix._modules, "layers": prefix.layers[: self.P], "norm": nn.Identity()}
        prefix.config = copy.copy(prefix.config)
        prefix.config.num_hidden_layers = self.P
        state = prefix(inputs_embeds=embeds, use_cache=False).last_hidden_state[0, -1]
        head = self.model.scheduler.mlp_head
        return (head.weight @ state + head.bias).tolist()

    def choose(self, scores: list[float], units: int) -> set[tuple[int, int, int]]:
        """Switches that are on: (layer, 0 for heads or 1 for neuron groups, index)."""
        on = {(layer, component, a) for layer in range(self.P) for component in (0, 1) for a in range(self.A)}
        if self.config.scheduler_type == "L":
            best = sorted(range(self.L - self.P), key=lambda n: -scores[n])[:units]
            return on | {(self.P + n, component, a) for n in best for component in (0, 1) for a in range(self.A)}
        score = {}
        for layer in range(self.P, self.L):
            for component in (0, 1):
                for a in range(self.A):
                    score[layer, component, a] = scores[((layer - self.P) * 2 + component) * self.A + a]
        for _ in range(units):
            named = max((switch for switch in score if switch not in on), key=score.__getitem__)[0]
            for component in (0, 1):
                off = [a for a in range(self.A) if (named, component, a) not in on]
                off.sort(key=lambda a: -score[named, component, a])
                on |= {(named, component, a) for a in off[: self.config.scheduler_rank]}
        return on

    def cut(self, on: set[tuple[int, int, int]]) -> LlamaForCausalLM:
        """The plain model with zeros where nothing runs."""
        cut = copy.deepcopy(self.plain)
        for index, layer in enumerate(cut.model.layers):
            for component, linear in enumerate((layer.self_attn.o_proj, layer.mlp.down_proj)):
                size, longer = divmod(linear.in_features, self.A)
                start = 0
                for a in range(self.A):
                    end = start + size + (a < longer)
                    if (index, component, a) not in on:
                        linear.weight.data[:, start:end] = 0
                    start = end
        return cut

    @torch.no_grad()
    def generate(self, embeds: torch.Tensor, budget: float, count: int) -> tuple[set, list[int], torch.Tensor]:
        """Prompt (1, T, D) -> switches that are on, greedy tokens, the first token's logits (V,)."""
        units = self.granted(budget)
        embeds = torch.cat([embeds, self.token(units)], dim=1)
        on = self.choose(self.scores(embeds), units)
        model, tokens, first = self.cut(on), [], None
        for _ in range(count):
            logits = model(inputs_embeds=embeds, use_cache=False).logits[0, -1]
            first = logits if first is None else first
            tokens.append(int(logits.argmax()))
            embeds = torch.cat([embeds, model.model.embed_tokens.weight[tokens[-1]][None, None]], dim=1)
        return on, tokens, first


@pytest.fixture(scope="session")
def slow_of(plain_of) -> Callable[[AdaLlavaLlamaForCausalLM], SlowAda]:
    """``slow_of(model)``: the same model, run the slow way."""
    return lambda model: SlowAda(model, plain_of(model))


@pytest.fixture(scope="session")
def slow_class() -> type[SlowAda]:
    """``slow_class(model, plain)``: for decoders other than Llama."""
    return SlowAda


@pytest.fixture(scope="session")
def make_plain(make_config, tower_folder):
    """``make_plain(layers)``: a plain LLaVA made adaptive: no scheduler, so no latency token."""

    def make(layers: int) -> LlavaLlamaForCausalLM:
        torch.manual_seed(1)
        model = LlavaLlamaForCausalLM(make_config(mm_vision_tower=str(tower_folder), num_hidden_layers=layers)).eval()
        model.get_vision_tower().load_model()
        model.generation_config.eos_token_id = None
        make_adaptive(model)
        return model

    return make
