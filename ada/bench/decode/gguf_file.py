"""Writes a Llama-like decoder as a GGUF file in Q8_0, for llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

BLOCK = 32  # numbers of a row that share a scale in Q8_0
PROJECTIONS = {  # the file's names of a layer's projections
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
EMBEDDINGS = "token_embd.weight"
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def write_gguf(model: Any, path: Path, gguf: Any) -> int:
    """Write the decoder of ``model``, one of Llama's layout without biases; gguf: the package of that name.

    Returns the bytes of the weights that a decode step reads. Matrices are Q8_0, or float16 where their rows are no
    multiple of 32 long; there is no vocabulary but token ids.
    """
    writer, config = gguf.GGUFWriter(str(path), "llama"), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(model.model.layers[0].self_attn.head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    read = 0
    for name, weight in tensors(model):
        values = weight.detach().float().cpu().numpy()
        kind = dtype_name(weight)
        packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
        read += packed.nbytes if name != EMBEDDINGS else 0
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


def dtype_name(weight: torch.Tensor) -> str:
    """Return the type that a tensor is written in."""
    if weight.dim() == 1:
        return "F32"
    return "Q8_0" if weight.shape[1] % BLOCK == 0 else "F16"


def tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the file's names and tensors."""
    yield EMBEDDINGS, model.get_input_embeddings().weight
    yield "output_norm.weight", model.model.norm.weight
    yield "output.weight", model.lm_head.weight
    head_dim = model.model.layers[0].self_attn.head_dim
    for index, layer in enumerate(model.model.layers):
        for name, source in NORMS.items():
            yield f"blk.{index}.{name}.weight", layer.get_submodule(source).weight
        for name, source in PROJECTIONS.items():
            weight = layer.get_submodule(source).weight
            turned = paired(weight, head_dim) if name in ("attn_q", "attn_k") else weight
            yield f"blk.{index}.{name}.weight", turned


def paired(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder rows (H d, in) of a head from transformers' halves to the neighbouring pairs that llama.cpp rotates."""
    heads = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape)
