"""8-bit weights: against a slow product, in models, opened and not saved."""

import copy
import gc
import sys
import weakref

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, OptionError
from llava.model import int8_linear
from llava.model.builder import load_pretrained_model
from llava.model.int8_linear import Int8Linear, int8_product, int8_weights, is_int8, quantise_int8

IDS = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7]])
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def opened(folder, **more):
    return load_pretrained_model(str(folder), None, "any", device="cpu", load_8bit=True, **more)[1]


def weights(rows, columns, seed=0):
    """Rows of very different sizes (rows, columns), one of zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * torch.logspace(-4, 1, rows)[:, None]
    weight[rows // 2] = 0
    return weight


def slow_product(x, weight, scale, bias):
    """One value after the other, in float64."""
    values = [[float(w) * float(s) for w in row] for row, s in zip(weight, scale, strict=True)]
    out = [[sum(a * b for a, b in zip(one.tolist(), row, strict=True)) for row in values] for one in x]
    return torch.tensor(out, dtype=torch.float64) + (0 if bias is None else bias.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_weight_is_off_by_half_a_step_of_its_row_at_most(dtype):
    weight = weights(40, 64).to(dtype)
    rounded, scale = int8_weights(weight)
    assert rounded.dtype == torch.int8 and rounded.abs().max() <= 127 and scale.dtype == torch.bfloat16
    off = (rounded.double() * scale.double()[:, None] - weight.double()).abs()
    steps = weight.double().abs().amax(dim=1, keepdim=True) / 127
    assert (off <= 0.505 * steps).all(), "half a step, of a scale that is itself rounded by up to 1/256"
    assert rounded[20].eq(0).all() and scale.gt(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [16, 33, 48, 100])
@pytest.mark.parametrize("positions", [0, 1, 3, 12, 13, 40])
def test_product_equals_the_slow_one(dtype, columns, positions, monkeypatch):
    """Of few positions and many, in widths that torch's kernel takes, and those with which it reads past its rows."""
    monkeypatch.setattr(int8_linear, "BLOCK", 3 * columns)  # 7 rows: blocks of 3, 3 and 1
    generator = torch.Generator().manual_seed(positions)
    x, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((positions, columns), (7,)))
    weight, scale = int8_weights(weights(7, columns, seed=1))
    out = int8_product(x, weight, scale, bias)
    assert out.dtype == dtype and out.shape == (positions, 7)
    if not positions:
        return
    expected = slow_product(x, weight, scale, bias)
    # Of each product's own size: inputs and results that are rounded to bfloat16, by 1/512 each time.
    size = x.double().norm(dim=1, keepdim=True) * (weight.double() * scale.double()[:, None]).norm(dim=1) + bias.abs()
    assert ((out.double() - expected).abs() <= size / 128).all()
    assert int8_product(x[None, :, None], weight, scale, bias).shape == (1, positions, 1, 7)


def test_product_of_float32_reads_blocks_exactly():
    x, (weight, scale) = torch.randn(40, 48), int8_weights(weights(7, 48))
    expected = slow_product(x, weight, scale, None)
    torch.testing.assert_close(int8_product(x, weight, scale).double(), expected, rtol=1e-5, atol=1e-4)


def test_gradient_flows_to_the_input():
    x, (weight, scale) = torch.randn(2, 48, requires_grad=True), int8_weights(weights(7, 48))
    int8_product(x, weight, scale).sum().backward()
    expected = (weight.double() * scale.double()[:, None]).sum(dim=0).expand(2, -1)
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-5, atol=1e-5)


def test_quantising_replaces_one_layer_after_the_other():
    """The float weights of a layer are freed before the next one is read."""
    model = nn.ModuleDict({f"part{n}": nn.Sequential(nn.Linear(32, 8, bias=n == 1), nn.ReLU()) for n in range(3)})
    model["kept"], model["kept_too"] = nn.Linear(32, 8), nn.Linear(8, 8)
    held = [weakref.ref(model[f"part{n}"][0].weight) for n in range(3)]
    alive = []

    def seen(weight):
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        return int8_weights(weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_linear, "int8_weights", seen)
        assert quantise_int8(model, ["kept"]) == 3
    assert alive[0] == 3 and alive[2] <= 2, "the one that is replaced next to, perhaps, the one before it"
    assert type(model["kept"]) is type(model["kept_too"]) is nn.Linear
    assert all(type(model[f"part{n}"][0]) is Int8Linear for n in range(3)) and model["part1"][0].bias is not None


def test_weight_that_is_not_finite_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight.data[2, 1] = float("inf")
    with pytest.raises(CheckpointError, match=r"1\.weight holds values that are not finite"):
        quantise_int8(model)
    with torch.device("meta"):
        nowhere = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(OptionError, match="device map"):
        quantise_int8(nowhere)


def test_opened_in_8_bits_the_decoder_answers_within_the_rounding(tiny_checkpoint, model, pixels):
    """The decoder's layers are rounded and nothing else; logits are those of rounded weights, near the checkpoint's."""
    found = opened(tiny_checkpoint)
    names = {name for name, module in found.named_modules() if isinstance(module, Int8Linear)}
    assert {name.rpartition(".")[2] for name in names} == set(PROJECTIONS) and len(names) == 14
    rounded = copy.deepcopy(model)
    for name in names:
        weight = rounded.get_submodule(name).weight
        steps, scale = int8_weights(weight.data)
        weight.data = steps.float() * scale.float()[:, None]
    ids = IDS.repeat(5, 1)
    images = pixels[:1].repeat(5, 1, 1, 1)  # 35 positions: more than few
    with torch.no_grad():
        ours, expected, exact = (one(ids, images=images).logits for one in (found, rounded, model))
        few = found(IDS, images=pixels[:1]).logits
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert 0 < (ours - exact).norm() < 0.03 * exact.norm()
    assert (few - expected[:1]).norm() < 0.02 * expected[:1].norm(), "with inputs in bfloat16"


def test_8_bits_need_no_library_and_4_bits_do(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert is_int8(opened(tiny_checkpoint))
    with pytest.raises(OptionError, match="extra 'quant'"):
        opened(tiny_checkpoint, load_4bit=True)


def test_weights_that_are_quantised_already_are_refused(tiny_checkpoint, monkeypatch):
    """As those of a checkpoint that bitsandbytes quantised: no plain linear layer is left."""
    monkeypatch.setattr("llava.model.builder.quantise_int8", lambda *_: 0)
    with pytest.raises(OptionError, match="quantised already; leave out --load-8bit"):
        opened(tiny_checkpoint)


def test_weights_in_8_bits_are_not_saved(tiny_checkpoint, tmp_path):
    found = opened(tiny_checkpoint)
    with pytest.raises(OptionError, match="--load-8bit"):
        found.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(OptionError, match="not saved"):
        found.state_dict()


def test_plain_language_model_opens_in_8_bits(tiny_checkpoint, model, make_config, tmp_path, tiny_tokenizer):
    settings = {key: value for key, value in make_config().to_dict().items() if not key.startswith("mm_")}
    plain = LlamaForCausalLM(type(LlamaForCausalLM.config_class())(**{**settings, "model_type": "llama"}))
    plain.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = opened(tmp_path)
    assert isinstance(found, LlamaForCausalLM) and type(found.lm_head) is nn.Linear
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours, exact = found(ids).logits, AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
    assert 0 < (ours - exact).norm() < 0.03 * exact.norm()
    with pytest.raises(OptionError, match="not saved"):
        found.save_pretrained(tmp_path / "saved")


def test_8_bit_model_is_moved_and_copied_as_it_is(tiny_checkpoint, pixels):
    found = opened(tiny_checkpoint, dtype=torch.bfloat16)
    again, wider = copy.deepcopy(found), copy.deepcopy(found).float()
    layer = wider.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.int8 and (layer.in_features, layer.out_features) == (32, 48)
    assert torch.equal(layer.scale, found.model.layers[0].mlp.up_proj.scale.float())
    with torch.no_grad():
        ours, expected = (one(IDS, images=pixels[:1].bfloat16()).logits for one in (again, found))
        widened = wider(IDS, images=pixels[:1]).logits
    assert torch.equal(ours, expected) and (widened - expected).norm() < 0.05 * widened.norm()
