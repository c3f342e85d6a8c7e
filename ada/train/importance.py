"""Measures what a LLaVA's layers, attention heads and MLP neurons matter to its answers, and orders the neurons by it.

    python -m ada.train.importance --model-path LLAVA --data-path short.json --image-folder images --out FILE

A budget switches neurons in groups. Where every group holds neurons that matter, each that is off costs; sorted, those
that matter stand in the first groups, and the last ones cost little. ``--neuron_order FILE`` trains in that order.

An activation matters as the square of what the loss would change by without it, to first order: of activation times
gradient (Molchanov et al. 2019, arXiv 1906.10771), summed over the positions of the samples. A layer matters as what
the loss grows by without it. A new scheduler starts with both.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from llava.errors import OptionError
from llava.files.atomic_write import atomic_path
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.neuron_order import read_order, reorder_neurons, write_order
from llava.model.checkpoint.weights_io import read_weights
from llava.model.checkpoint.zero3 import gathered_parameters
from llava.program import run_program
from llava.train.data.collator import DataCollatorForSupervisedDataset
from llava.train.data.dataset import LazySupervisedDataset, SampleSettings
from llava.train.data.preprocessing import template_of

# In the file, in addition to the order: what the switches matter (layers, 2, A), and the layers (layers,).
SWITCHES = "switches"
LAYERS = "layers"


@dataclass(frozen=True)
class Importance:
    """Of heads (layers, A), a key-value group each, and of neurons (layers, F), in the model's order."""

    heads: torch.Tensor
    neurons: torch.Tensor

    @property
    def order(self) -> torch.Tensor:
        """The neurons of each layer (layers, F), those that matter most first."""
        return self.neurons.argsort(dim=1, descending=True, stable=True)

    def of_switches(self) -> torch.Tensor:
        """Return what each switch matters (layers, 2, A): heads, and groups of the neurons in ``order``."""
        layers, switches = self.heads.shape
        in_order = self.neurons.gather(1, self.order)
        return torch.stack([self.heads, in_order.view(layers, switches, -1).sum(dim=-1)], dim=1)


def measure(model: Any, batches: Iterable[Mapping[str, Any]]) -> Importance:
    """Measure on training batches: ids, labels, images. Weights stay as they are, and get no gradients."""
    layers, config = model.get_model().layers, model.config
    heads = torch.zeros(len(layers), config.num_key_value_heads)
    neurons = torch.zeros(len(layers), config.intermediate_size)
    model.requires_grad_(False)
    hooks = [layers[0].register_forward_pre_hook(_with_gradients)]
    for layer, of_heads, of_neurons in zip(layers, heads, neurons, strict=True):
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(_adds_to(of_heads)))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(_adds_to(of_neurons)))
    try:
        for batch in batches:
            with torch.enable_grad():
                model(**batch, answers_only=True).loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return Importance(heads, neurons)


def _with_gradients(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    hidden, *others = inputs
    return (hidden.requires_grad_(), *others)


def _adds_to(total: torch.Tensor) -> Any:
    """Make a hook that adds, once the gradient is there, what the parts of a projection's input matter.

    The input (B, T, C) has ``len(total)`` parts of as many channels each.
    """

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        value = inputs[0].detach()

        def add(gradient: torch.Tensor) -> None:
            parts = (value * gradient).float().view(-1, len(total), value.shape[-1] // len(total)).sum(dim=-1)
            total.add_(parts.square().sum(dim=0).to(total.device))

        inputs[0].register_hook(add)  # type: ignore[no-untyped-call]

    return hook


@torch.no_grad()
def measure_layers(model: Any, batches: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Measure by how much the mean loss of the batches grows without each layer (layers,)."""
    layers = model.get_model().layers

    def loss() -> float:
        return math.fsum(model(**batch, answers_only=True).loss.item() for batch in batches) / len(batches)

    full, grown = loss(), []
    for layer in tqdm(layers, desc="layers"):
        with layer.register_forward_hook(_skipped):
            grown.append(loss() - full)
    return torch.tensor(grown)


def _skipped(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> torch.Tensor:
    return inputs[0]


def switch_scores(importance: torch.Tensor) -> torch.Tensor:
    """Return what a scheduler's logits start as (N, 2, A) for switches of this importance (N, 2, A).

    A unit switches a layer's next best head on with its next best neuron group, so both get the logarithm of what the
    pair matters; the mean of all is 0.
    """
    best = importance.sort(dim=-1, descending=True, stable=True)
    pairs = 2 * best.values.sqrt().sum(dim=1, keepdim=True).clamp(min=1e-12).log()  # (N, 1, A)
    scores = torch.empty_like(importance).scatter_(-1, best.indices, pairs.expand_as(importance))
    return scores - scores.mean()


def layer_scores(increases: torch.Tensor) -> torch.Tensor:
    """Return what a scheduler's logits start as (N,) for layers without which the loss grows by ``increases`` (N,)."""
    scores = increases.clamp(min=1e-3).log()
    return scores - scores.mean()


@torch.no_grad()
def start_scheduler(model: Any, scores: torch.Tensor, source: str) -> None:
    """Let a new scheduler start with ``scores``, of all tunable switches, whatever it reads.

    Raises OptionError where the model has other switches.
    """
    head, expected = model.scheduler.mlp_head, model.scheduler.logits_shape
    if scores.shape != expected:
        raise OptionError(
            f"{source} is of switches {tuple(scores.shape)}; the model has {expected}; measure it on this model"
        )
    with gathered_parameters(head.parameters()):
        head.weight.zero_()
        head.bias.copy_(scores.flatten())


def start_by_importance(model: Any, path: Path) -> None:
    """Reorder a model's neurons as this program's file says, which only kind H needs, and start its scheduler.

    An adapter's file has the order alone: its scheduler is filled afterwards, from the adapter.
    """
    tunable, found = slice(model.units.num_prefix_layers, None), read_weights(path)
    if model.units.kind == "H":
        reorder_neurons(model, read_order(path), str(path))
        if SWITCHES in found:
            start_scheduler(model, switch_scores(found[SWITCHES][tunable]), str(path))
    elif LAYERS in found:
        start_scheduler(model, layer_scores(found[LAYERS][tunable]), str(path))


def run(args: argparse.Namespace) -> None:
    """Load the model and as many records as asked for; measure, and write the file."""
    if min(args.samples, args.layer_samples, args.batch_size) < 1:
        raise OptionError("--samples, --layer-samples and --batch-size take whole numbers from 1 up")
    tokenizer, model, processor, context = load_pretrained_model(
        args.model_path, args.model_base, args.model_path, device=args.device, device_map=None
    )
    tokenizer.model_max_length = context
    aspect = getattr(model.config, "image_aspect_ratio", None) or "square"
    pinpoints = getattr(model.config, "image_grid_pinpoints", None)
    settings = SampleSettings(args.image_folder, processor, aspect, pinpoints)
    version = args.version or getattr(model.config, "conv_mode", "v1")
    data = LazySupervisedDataset(args.data_path, tokenizer, settings, template_of(version))
    collate = DataCollatorForSupervisedDataset(tokenizer)
    chosen = random.Random(0).sample(range(len(data)), min(args.samples, len(data)))
    cuts = [chosen[start : start + args.batch_size] for start in range(0, len(chosen), args.batch_size)]

    def batch(cut: Sequence[int]) -> dict[str, Any]:
        return _placed(collate([data[index] for index in cut]), model)

    layers = measure_layers(model, [batch(cut) for cut in cuts[: -(-args.layer_samples // args.batch_size)]])
    found = measure(model, map(batch, tqdm(cuts, desc="heads and neurons")))
    with atomic_path(args.out) as part:
        write_order(part, found.order, **{SWITCHES: found.of_switches(), LAYERS: layers})
    print(f"wrote {args.out}: measured on {len(chosen)} samples")


def _placed(batch: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Move a batch to the model's device, and its pixels to the model's dtype."""
    weight = model.get_input_embeddings().weight

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(weight.device, weight.dtype if value.is_floating_point() else None)

    return {key: moved(value) for key, value in batch.items()}


def main() -> int:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="the LLaVA that is to be trained under budgets")
    parser.add_argument("--model-base", help="the model that an adapter was trained on, where its config names none")
    parser.add_argument("--data-path", required=True, help="training file, as for llava/train/train.py")
    parser.add_argument("--image-folder", help="folder of its images")
    parser.add_argument("--version", help="template of the conversations (default: the checkpoint's conv_mode)")
    parser.add_argument("--samples", type=int, default=128, help="samples to measure on")
    parser.add_argument("--layer-samples", type=int, default=32, help="of these, to measure layers on, one at a time")
    parser.add_argument("--batch-size", type=int, default=4, help="samples in a batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device to measure on")
    parser.add_argument("--out", type=Path, required=True, help="file to write, for --neuron_order")
    args = parser.parse_args()
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
