"""The GGUF file for llama.cpp: the tensors in it, and their order of channels."""

import types
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ada.bench.decode.gguf_file import dtype_name, paired, tensors, write_gguf

SIZES = {"hidden_size": 32, "intermediate_size": 50, "num_attention_heads": 4, "num_key_value_heads": 2}


class Packed(NamedTuple):
    """What stands for a quantised tensor: a byte a number."""

    kind: str
    values: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.values.size


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=40, num_hidden_layers=2, head_dim=8)).eval()


def test_every_weight_is_written_once(model) -> None:
    found = dict(tensors(model))
    assert len(found) == len([*tensors(model)]) == len([*model.parameters()])
    assert sum(tensor.numel() for tensor in found.values()) == sum(p.numel() for p in model.parameters())
    assert found["blk.1.ffn_down.weight"] is model.model.layers[1].mlp.down_proj.weight


def test_neighbouring_pairs_turn_as_transformers_halves_do() -> None:
    weight, hidden, angle = torch.randn(16, 5), torch.randn(5), torch.rand(4)
    states = (weight @ hidden).view(1, 2, 1, 8)
    both = torch.cat([angle, angle])[None, None]
    expected, _ = apply_rotary_pos_emb(states, states, both.cos(), both.sin())
    pairs = (paired(weight, 8) @ hidden).view(2, 4, 2)
    first, second = pairs.unbind(-1)
    turned = torch.stack(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1
    )
    halves = turned.transpose(1, 2).reshape(1, 2, 1, 8)
    assert torch.allclose(halves, expected, atol=1e-5)


def test_matrices_are_q8_where_rows_are_made_of_blocks() -> None:
    assert dtype_name(torch.zeros(50, 32)) == "Q8_0"
    assert dtype_name(torch.zeros(32, 50)) == "F16"
    assert dtype_name(torch.zeros(32)) == "F32"


def test_written_file_has_the_models_sizes(model, tmp_path) -> None:
    calls: list[tuple] = []

    class Writer:
        """Records what is written."""

        def __init__(self, *arguments: str) -> None:
            calls.append(("made", *arguments))

        def __getattr__(self, name: str):
            return lambda *values, **keywords: calls.append((name, *values))

    kinds = {kind: kind for kind in ("Q8_0", "F16", "F32")}
    gguf = types.SimpleNamespace(
        GGUFWriter=Writer,
        LlamaFileType=types.SimpleNamespace(MOSTLY_Q8_0=7),
        GGMLQuantizationType=kinds,
        quants=types.SimpleNamespace(quantize=lambda values, kind: Packed(kind, values)),
    )
    read = write_gguf(model, tmp_path / "x.gguf", gguf)
    said = {name: values for name, *values in calls if name != "add_tensor"}
    assert said["made"] == [str(tmp_path / "x.gguf"), "llama"] and said["add_head_count_kv"] == [2]
    assert said["add_rope_dimension_count"] == [8] and said["add_vocab_size"] == [40]
    assert read == sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    packed = {name: value for _, name, value in (call for call in calls if call[0] == "add_tensor")}
    kind, values = packed["blk.0.ffn_gate.weight"]
    assert kind == "Q8_0" and np.array_equal(values, model.model.layers[0].mlp.gate_proj.weight.detach().numpy())
    assert packed["blk.0.ffn_down.weight"][0] == "F16" and packed["output_norm.weight"][0] == "F32"
