"""Times whether it pays to dequantize a layer and cut it to a plan: ``python -m ada.bench quantized``.

One decoder layer has the shapes of a 7B model and its weights in 4 bit (NF4) or 8 bit (LLM.int8()). Of each plan two
ways are timed, interleaved: *masked*, the dense quantized layer with gates on its outputs, as a budget runs it; and
*cut*, the plan's heads and neurons taken out of dequantized weights once, in bfloat16, and run as a narrow layer. The
table also shows the milliseconds that cutting takes, and the bytes that the cut weights take in addition to the
quantized ones, which stay for other plans.

Prints a table, and the same as one JSON object on the last line. "times faster" is above 1 where cutting pays.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from ada.bench.compare import compare
from ada.execution.call_state import LayerAction
from ada.execution.layer_weights import copied, cut, projection_bytes
from ada.execution.maskable_layer import install
from ada.scheduling.execution_plan import LayerPlan
from llava.errors import OptionError
from llava.model.placement import require_bitsandbytes

SWITCHES = 32
SIZES_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": SWITCHES}
Layer = Callable[[torch.Tensor, Any], Any]  # (1, T, D) hidden states and their rotary embeddings -> the layer's output


def dense_layer(sizes: dict[str, int]) -> tuple[LlamaDecoderLayer, LlamaRotaryEmbedding]:
    """Make a maskable layer with random weights in bfloat16, and the module of its rotary embeddings."""
    config = LlamaConfig(**sizes, num_hidden_layers=1, attn_implementation="sdpa")
    torch.manual_seed(0)
    layer = LlamaDecoderLayer(config, 0).to(torch.bfloat16).eval()
    install([layer])
    return layer, LlamaRotaryEmbedding(config)


def quantize(layer: LlamaDecoderLayer, bits: int) -> tuple[LlamaDecoderLayer, LlamaDecoderLayer]:
    """Return the layer in 4 or 8 bit, and one in bfloat16 whose weights are the quantized ones' values."""
    bnb = require_bitsandbytes()
    quantized, values = copy.deepcopy(layer), copy.deepcopy(layer)
    for part, same in ((quantized.self_attn, values.self_attn), (quantized.mlp, values.mlp)):
        for name, linear in list(part.named_children()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            shape = linear.in_features, linear.out_features
            if bits == 4:
                made = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
                made.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            else:
                made = bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False, threshold=6.0)
                made.weight = bnb.nn.Int8Params(linear.weight.data.half(), requires_grad=False)
            setattr(part, name, made.to("cpu").eval())
            getattr(same, name).weight.data = _values(made, bits).to(torch.bfloat16)
    return quantized, values


def _values(linear: torch.nn.Linear, bits: int) -> torch.Tensor:
    """Return a quantized projection's weights (out, in), before its first product, which may pack them otherwise."""
    functional, weight = require_bitsandbytes().functional, cast(Any, linear.weight)
    if bits == 4:
        values: torch.Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        values = functional.int8_vectorwise_dequant(weight.data, weight.SCB)
    return values


def ways(
    quantized: LlamaDecoderLayer, values: LlamaDecoderLayer, plan: LayerPlan
) -> tuple[dict[str, Layer], float, int]:
    """Return the two ways, the seconds of cutting, and the bytes of the cut weights. values: the dequantized layer."""
    start = time.perf_counter()
    weights = cut(copied(values), plan, SWITCHES, take=None)
    seconds = time.perf_counter() - start
    gates = torch.zeros(1, 2, SWITCHES)
    gates[0, 0, list(plan.heads)] = gates[0, 1, list(plan.neuron_groups)] = 1
    actions = {"cut": LayerAction(narrow=weights), "masked": LayerAction(gates=gates)}

    def layer_under(action: LayerAction) -> Layer:
        return lambda hidden, rotary: quantized.forward(
            hidden, action.gates, action=action, position_embeddings=rotary, attention_mask=None
        )

    products = (weights.qkv, weights.output, weights.gate_up, weights.down)
    cut_bytes = sum(product.weight.nbytes for product in products if product is not None)
    return {name: layer_under(work) for name, work in actions.items()}, seconds, cut_bytes


@torch.inference_mode()
def measure(
    bits: Sequence[int], shares: Sequence[float], positions: int, rounds: int, sizes: dict[str, int]
) -> list[dict[str, Any]]:
    """Return a line for each width and share: median milliseconds by phase and way, and median ratios of a round."""
    layer, rotary = dense_layer(sizes)
    lines = []
    for width in bits:
        quantized, values = quantize(layer, width)
        for share in shares:
            kept = tuple(sorted(random.Random(0).sample(range(SWITCHES), max(1, int(SWITCHES * share)))))
            both, seconds, extra = ways(quantized, values, LayerPlan(heads=kept, neuron_groups=kept))
            line: dict[str, Any] = {"bits": width, "share": len(kept) / SWITCHES, "cut once": round(1000 * seconds, 1)}
            for phase, length, repeats in (("prefill", positions, 1), ("decode", 1, 8)):
                hidden = torch.randn(1, length, sizes["hidden_size"], dtype=torch.bfloat16)
                angles = rotary(hidden, torch.arange(length)[None])
                calls = {name: partial(way, hidden, angles) for name, way in both.items()}
                line[phase] = compare(calls, rounds, repeats, random.Random(0))
            line["quantised MB"], line["cut MB"] = round(projection_bytes(quantized) / 1e6), round(extra / 1e6)
            lines.append(line)
    return lines


def show(lines: Sequence[dict[str, Any]], title: str) -> None:
    """Print the lines as a table."""
    table = Table(title=title)
    phases = [f"{phase} masked / cut, ms\n(times faster)" for phase in ("prefill", "decode")]
    for column in ("bits", "share", *phases, "cut once, ms", "quantized, MB", "cut, MB"):
        table.add_column(column, justify="right")
    for line in lines:
        times = [
            f"{line[p]['masked_ms']:.1f} / {line[p]['cut_ms']:.1f} ({line[p]['times_faster']:.2f})"
            for p in ("prefill", "decode")
        ]
        rest = (f"{line['cut once']:.0f}", str(line["quantised MB"]), str(line["cut MB"]))
        table.add_row(str(line["bits"]), f"{line['share']:.2f}", *times, *rest)
    Console(width=110).print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8], choices=[4, 8], help="bits of a weight")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.75, 0.5, 0.25], help="shares of the layer that plans keep"
    )
    parser.add_argument("--positions", type=int, default=640, help="positions of the prompt")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians are over these")
    parser.add_argument("--hidden-size", type=int, default=4096, help="width of the layer, a multiple of 2048")
    parser.add_argument("--intermediate-size", type=int, default=11008, help="width of its MLP, a multiple of 64")


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for sizes that cannot be cut or quantized."""
    if min(args.positions, args.rounds) < 1 or not all(0 < share < 1 for share in args.shares):
        raise OptionError("--positions and --rounds take numbers from 1 up, --shares numbers between 0 and 1")
    if args.hidden_size % (64 * SWITCHES) or args.intermediate_size % 64:
        raise OptionError("--hidden-size takes multiples of 2048, --intermediate-size multiples of 64")
    require_bitsandbytes()
    sizes = {**SIZES_7B, "hidden_size": args.hidden_size, "intermediate_size": args.intermediate_size}
    lines = measure(args.bits, args.shares, args.positions, args.rounds, sizes)
    settings = {"positions": args.positions, "threads": torch.get_num_threads()}
    show(lines, "one layer, " + ", ".join(f"{value} {name}" for name, value in settings.items()))
    print(json.dumps({**settings, "rounds": args.rounds, "torch": torch.__version__, "layers": lines}))
