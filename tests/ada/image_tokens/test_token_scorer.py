"""The token scorer against its formula, and as a part of a model and its checkpoint."""

import pytest
import torch
from safetensors.torch import load_file

from ada.image_tokens.token_scorer import TokenScorer, scorer_of
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.errors import OptionError


@pytest.fixture
def scorer():
    torch.manual_seed(0)
    return TokenScorer(hidden_size=6, rank=3)


def normed(state):
    return (state - state.mean()) / (state.var(unbiased=False) + 1e-5).sqrt()


@torch.no_grad()
def test_scores_are_those_of_the_formula(scorer):
    images, latency = torch.randn(4, 6) * 3 + 1, torch.randn(6)
    scores = scorer(images, latency)
    a, b, c = scorer.image_proj, scorer.latency_proj, scorer.content
    asked = b.weight @ normed(latency) + b.bias
    for token, state in enumerate(images):
        x = normed(state)
        expected = (a.weight @ x + a.bias) @ asked / 3**0.5 + c.weight[0] @ x + c.bias[0]
        torch.testing.assert_close(scores[token], expected)


@torch.no_grad()
def test_rows_of_a_batch_are_scored_as_each_alone(scorer):
    images, latency = torch.randn(5, 4, 6), torch.randn(5, 6)
    batched = scorer(images, latency)
    assert batched.shape == (5, 4)
    for row in range(5):
        torch.testing.assert_close(batched[row], scorer(images[row], latency[row]))


@torch.no_grad()
def test_question_changes_the_order(scorer):
    images = torch.randn(8, 6)
    orders = {tuple(scorer(images, torch.randn(6)).argsort().tolist()) for _ in range(20)}
    assert len(orders) > 1


@torch.no_grad()
def test_scores_are_float32_in_any_dtype(scorer):
    images, latency = torch.randn(4, 6), torch.randn(6)
    exact = scorer(images, latency)
    rounded = scorer.to(torch.bfloat16)(images.bfloat16(), latency.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_model_has_a_scorer_where_its_config_says_so(make_llava):
    assert make_llava("H").token_scorer is None
    model = make_llava("H", token_scorer_layer=3)
    assert model.token_scorer.image_proj.in_features == model.config.hidden_size
    assert "token_scorer" in model.never_quantised


@pytest.mark.parametrize("layer", [0, -1, 5, 2.0, "2", True])
def test_layer_that_the_decoder_does_not_have_is_refused(make_config, layer):
    config = make_config(num_hidden_layers=5, token_scorer_layer=layer)
    with pytest.raises(OptionError, match=r"token_scorer_layer is .*; expected 1 to 4"):
        scorer_of(config)


def test_scorer_is_saved_and_read_with_the_checkpoint(make_llava, tmp_path):
    model = make_llava("L", token_scorer_layer=2)
    torch.nn.init.normal_(model.token_scorer.content.weight)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    parts = ("image_proj", "latency_proj", "content")
    assert {key for key in saved if "scorer" in key} == {
        f"token_scorer.{part}.{kind}" for part in parts for kind in ("weight", "bias")
    }
    read = AdaLlavaLlamaForCausalLM.from_pretrained(tmp_path)
    assert read.config.token_scorer_layer == 2
    for key, value in model.token_scorer.state_dict().items():
        assert torch.equal(read.token_scorer.state_dict()[key], value)


def test_checkpoint_without_a_scorer_is_read_as_before(make_llava, tmp_path):
    make_llava("L").save_pretrained(tmp_path)
    model, found = AdaLlavaLlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert model.token_scorer is None and not found["missing_keys"]
    assert "token_scorer_layer" not in (tmp_path / "config.json").read_text()
