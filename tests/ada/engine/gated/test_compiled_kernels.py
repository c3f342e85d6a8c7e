"""Kernels compiled for an H100 at the shapes of 7B decoders: what the interpreter takes and a compiler does not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ada.engine.gated.device_plan import DevicePlan
from ada.engine.gated.shapes import DecoderShapes
from ada.engine.gated.tiling import Tiling
from ada.engine.gated.work_buffers import WorkBuffers

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]

VICUNA = DecoderShapes(2, width=4096, heads=32, kv_heads=32, head_dim=128, neurons=11008, eps=1e-5)
VICUNA_13B = DecoderShapes(2, width=5120, heads=40, kv_heads=40, head_dim=128, neurons=13824, eps=1e-5)
QWEN2 = DecoderShapes(2, width=3584, heads=28, kv_heads=4, head_dim=128, neurons=18944, eps=1e-6)
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "i8", torch.int32: "i32"}


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def make_layer(shapes: DecoderShapes, dtype: torch.dtype, weights: torch.dtype, bias: bool):
    """A decoder layer without memory."""

    def linear(out: int, width: int):
        parts = {"weight": empty(out, width, dtype=weights), "bias": empty(out, dtype=dtype) if bias else None}
        if weights == torch.int8:
            parts["scale"] = empty(out, dtype=torch.float32)
        return SimpleNamespace(**parts)

    width, neurons = shapes.width, shapes.neurons
    queries, keys = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    return SimpleNamespace(
        input_layernorm=SimpleNamespace(weight=empty(width, dtype=dtype)),
        post_attention_layernorm=SimpleNamespace(weight=empty(width, dtype=dtype)),
        self_attn=SimpleNamespace(
            q_proj=linear(queries, width),
            k_proj=linear(keys, width),
            v_proj=linear(keys, width),
            o_proj=linear(width, queries),
            scaling=shapes.head_dim**-0.5,
        ),
        mlp=SimpleNamespace(
            gate_proj=linear(neurons, width), up_proj=linear(neurons, width), down_proj=linear(width, neurons)
        ),
    )


def compiled(kernel, arguments, keywords):
    """The kernel compiled for compute capability 9.0, with the arguments' types, alignments and constants."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {"num_warps": keywords.pop("num_warps")}
    named = {**dict(zip(kernel.arg_names, arguments, strict=False)), **keywords}
    signature, constants, aligned = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        value = named[name]
        if isinstance(value, torch.Tensor) or name == "capacity":
            signature[name] = "i32" if name == "capacity" else f"*{TYPES[value.dtype]}"
            offset = 0 if name == "capacity" else value.storage_offset() * value.element_size()
            if offset % 16 == 0:
                aligned[index,] = [["tt.divisibility", 16]]
        else:
            signature[name], constants[name] = "constexpr", value
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def spilled_bytes(binary: bytes, folder: Path) -> int:
    """Bytes of a thread's registers that a compiled kernel keeps in memory."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    (folder / "kernel.cubin").write_bytes(binary)
    usage = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    return sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", usage.stdout)))


@pytest.mark.parametrize(
    ("shapes", "rows", "dtype", "weights"),
    [
        pytest.param(VICUNA, 1, torch.bfloat16, torch.bfloat16, id="7b-1-row"),
        pytest.param(VICUNA, 8, torch.bfloat16, torch.bfloat16, id="7b-8-rows"),
        pytest.param(VICUNA, 1, torch.bfloat16, torch.int8, id="7b-bytes", marks=pytest.mark.slow),
        pytest.param(VICUNA, 8, torch.float32, torch.float32, id="7b-float32-8-rows", marks=pytest.mark.slow),
        pytest.param(VICUNA_13B, 1, torch.bfloat16, torch.bfloat16, id="13b-1-row", marks=pytest.mark.slow),
        pytest.param(QWEN2, 8, torch.bfloat16, torch.bfloat16, id="qwen2-8-rows", marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_and_load_16_bytes_at_once_without_spills(
    monkeypatch, tmp_path, shapes, rows, dtype, weights
) -> None:
    from ada.engine.gated import gated_layer

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    found = {}

    class Compiler:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            assert all(size > 0 for size in grid)
            return self.compile

        def compile(self, *arguments, **keywords):
            found[self.kernel.__name__, len(found)] = compiled(self.kernel, arguments, dict(keywords))

    for name in [name for name in vars(gated_layer) if name.endswith("_kernel")]:
        monkeypatch.setattr(gated_layer, name, Compiler(getattr(gated_layer, name)))
    tiling = Tiling()
    work = WorkBuffers.make(shapes, 16, tiling, empty(1, dtype=dtype))
    plan = DevicePlan(shapes.layers, 16, shapes.kv_heads, torch.device("cpu"))
    slots = [empty(16, shapes.kv_heads, 1024, shapes.head_dim, dtype=dtype) for _ in range(2)]
    counts = [empty(16, dtype=torch.int32) for _ in range(2)]
    tables = [empty(2048, shapes.head_dim // 2, dtype=torch.float32) for _ in range(2)]
    cache = gated_layer.LayerCache(*slots, *counts, *tables)
    layer = make_layer(shapes, dtype, weights, bias=shapes is QWEN2)
    gated_layer.GatedLayer(layer, shapes, plan.layers[1], cache, work, tiling).run(rows)

    assert {name for name, _ in found} >= {"qkv_kernel", "attend_kernel", "columns_kernel", "gate_up_kernel"}
    for (name, _), kernel in found.items():
        assert spilled_bytes(kernel.asm["cubin"], tmp_path) == 0, name
        if name != "join_kernel":  # it reads no weights or caches
            assert re.search(r"cp\.async\.cg[^;]*0x10", kernel.asm["ptx"]), name
