"""The attention of some positions, from a layer's weights, against what transformers' eager attention returns."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel, Qwen2Config, Qwen2Model

from ada.execution.attention_weights import attention_weights
from llava.errors import OptionError

WIDTH = 12
QUERIES = torch.tensor([[3, 11, 7], [0, 5, 9]])
PADDING = torch.tensor([[0] * 3 + [1] * 9, [1] * 10 + [0] * 2])  # left, and right
KINDS = {
    "llama": (LlamaModel, LlamaConfig, {"num_key_value_heads": 4}),
    "grouped": (LlamaModel, LlamaConfig, {"num_key_value_heads": 2}),
    "sliding": (MistralModel, MistralConfig, {"num_key_value_heads": 2, "sliding_window": 5}),
    "qwen2": (Qwen2Model, Qwen2Config, {"num_key_value_heads": 2}),
}


def make(kind, attention):
    model_class, config_class, more = KINDS[kind]
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.3}
    torch.manual_seed(0)
    return model_class(config_class(**sizes, **more, attn_implementation=attention)).eval()


def expected_weights(kind, embeds, mask, positions):
    """The eager attention of the last layer (B, H, T, T)."""
    model = make(kind, "eager")
    given = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
    return model(**given, output_attentions=True, use_cache=False).attentions[1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_weights_are_those_of_eager_attention(kind, padded, attention):
    embeds = torch.randn(2, WIDTH, 32, generator=torch.Generator().manual_seed(1))
    mask = PADDING if padded else torch.ones_like(PADDING)
    positions = torch.arange(WIDTH).expand(2, -1) * 2  # with gaps
    expected = expected_weights(kind, embeds, mask, positions)
    model, seen = make(kind, attention), []
    layer = model.layers[1]
    layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args[0], kwargs)), with_kwargs=True)
    model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
    ((hidden, keywords),) = seen
    found = attention_weights(layer, hidden, QUERIES, keywords)
    assert found.shape == (2, 4, 3, WIDTH) and found.dtype == torch.float32
    real = PADDING.bool() if padded else torch.ones(2, WIDTH, dtype=torch.bool)
    for row in range(2):
        for number, query in enumerate(QUERIES[row].tolist()):
            if real[row, query]:
                torch.testing.assert_close(found[row, :, number], expected[row, :, query], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_masks_of_flash_attention_and_none_are_read_as_causal():
    model = make("grouped", "eager")
    embeds = torch.randn(2, WIDTH, 32, generator=torch.Generator().manual_seed(1))
    layer, rotary = model.layers[0], model.rotary_emb(embeds, torch.arange(WIDTH)[None])
    mask = torch.tensor([[1] * 10 + [0] * 2] * 2)
    for given, full in ((mask, mask), (None, torch.ones_like(mask))):
        outputs = model(inputs_embeds=embeds, attention_mask=full, output_attentions=True, use_cache=False)
        found = attention_weights(layer, embeds, QUERIES, {"attention_mask": given, "position_embeddings": rotary})
        for row, columns in enumerate(QUERIES):
            kept = columns < 10
            expected = outputs.attentions[0][row][:, columns[kept]]
            torch.testing.assert_close(found[row][:, kept], expected, atol=1e-5, rtol=1e-4)


def test_mask_that_is_no_tensor_is_refused():
    model = make("llama", "eager")
    embeds = torch.zeros(2, WIDTH, 32)
    keywords = {
        "attention_mask": SimpleNamespace(),
        "position_embeddings": model.rotary_emb(embeds, torch.arange(WIDTH)[None]),
    }
    with pytest.raises(OptionError, match="the attention mask is a SimpleNamespace"):
        attention_weights(model.layers[0], embeds, QUERIES, keywords)
