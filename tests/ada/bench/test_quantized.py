"""The quantized benchmark: both ways compute the same."""

import pytest
import torch

from ada.bench import quantized
from ada.scheduling.execution_plan import LayerPlan


@pytest.mark.parametrize("bits", [4, 8])
def test_masked_quantized_layer_equals_the_cut_dequantized_layer(bits) -> None:
    """The two ways that are timed compute the same, within the rounding of 8-bit inputs."""
    sizes = {"hidden_size": 2048, "intermediate_size": 128, "num_attention_heads": 32}
    with torch.inference_mode():
        layer, rotary = quantized.dense_layer(sizes)
        layer_in_bits, values = quantized.quantize(layer, bits)
        kept = (0, 3, 4, 17)
        both, _, extra = quantized.ways(layer_in_bits, values, LayerPlan(kept, kept))
        hidden = torch.randn(1, 6, 2048, dtype=torch.bfloat16)
        angles = rotary(hidden, torch.arange(6)[None])
        masked, cut = (both[name](hidden, angles) - hidden for name in ("masked", "cut"))
    assert extra == 2 * (4 * 2048 * 256 + 3 * 2048 * 16), "an eighth of the seven matrices, in bfloat16"
    assert (masked - cut).norm() < 0.03 * cut.norm()
    (line,) = quantized.measure([bits], [0.5], 4, 1, sizes)
    assert line["share"] == 0.5 and min(line[phase]["times_faster"] for phase in ("prefill", "decode")) > 0
