"""Context lengths by config, against a table written out by hand; prompts, against what enters the decoder."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig

from llava.errors import CheckpointError, OptionError
from llava.generation import SamplingParams, answer
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model import LlavaConfig
from llava.model.loaded_model import open_model
from llava.model.sequence_length import answer_limit, check_prompt_length, context_length, prompt_length

# What published checkpoints state -> the context that their pages name.
PUBLISHED = {
    "LLaVA-1.5, Vicuna 1.5": ({"max_position_embeddings": 4096, "tokenizer_model_max_length": 2048}, 4096),
    "LLaVA-1.6, Vicuna 1.5": ({"max_position_embeddings": 4096, "tokenizer_model_max_length": 4096}, 4096),
    "LLaVA-1.6, Mistral": ({"max_position_embeddings": 32768, "sliding_window": None}, 32768),
    "Mistral 0.1": ({"max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
    "LLaVA-1.0, Vicuna 1.1": ({"max_position_embeddings": 2048, "max_sequence_length": 2048}, 2048),
    "Vicuna 1.5 16k": (
        {
            "max_position_embeddings": 4096,
            "max_sequence_length": 16384,
            "rope_scaling": {"factor": 4.0, "type": "linear"},
        },
        16384,
    ),
    "Vicuna 1.5 16k, without max_sequence_length": (
        {"max_position_embeddings": 4096, "rope_scaling": {"factor": 4.0, "type": "linear"}},
        16384,
    ),
    "Qwen 2.5 with YaRN": (
        {
            "max_position_embeddings": 32768,
            "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
        },
        131072,
    ),
    "YaRN that states the extended length": (
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "rope_type": "yarn"},
        },
        131072,
    ),
    "Llama 3.1": (
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
        131072,
    ),
}


@pytest.mark.parametrize("fields", PUBLISHED)
def test_context_length_of_a_published_config_is_what_its_page_names(fields):
    """As transformers reads the fields, which it renames and completes."""
    settings, expected = PUBLISHED[fields]
    assert context_length(LlavaConfig.from_dict(dict(settings))) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 2048),
        ({"max_position_embeddings": None}, 2048),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"text_config": SimpleNamespace(max_position_embeddings=8192)}, 8192),
        ({"max_position_embeddings": 512, "text_config": {"max_position_embeddings": 8192}}, 512),
        ({"text_config": {"max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 2}}}, 200),
        ({"max_seq_len": 65536}, 65536),
        ({"n_positions": 1024}, 1024),
        ({"max_sequence_length": 4096, "max_position_embeddings": 2048}, 2048),
        ({"max_sequence_length": 1024, "max_position_embeddings": 2048}, 1024),
        ({"max_position_embeddings": 1024, "tokenizer_model_max_length": 512}, 1024),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 0.5}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "linear"}}, 64),
        (
            {
                "max_position_embeddings": 64,
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default"},
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                },
            },
            512,
        ),
    ],
    ids=str,
)
def test_context_length_precedence(config, expected):
    assert context_length(SimpleNamespace(**config)) == expected


def test_context_length_of_an_mpt_config_is_its_max_seq_len():
    assert context_length(AutoConfig.for_model("mpt", max_seq_len=777)) == 777


@pytest.mark.parametrize("name", ["max_sequence_length", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, "4096", 12.5, True, [4096]])
def test_context_length_that_is_no_length_raises_with_field_and_value(name, value):
    with pytest.raises(CheckpointError, match=rf"{name} in config\.json is .*; expected a number of positions"):
        context_length(SimpleNamespace(**{name: value}))


positive = st.integers(1, 1 << 20)


@given(positive, st.one_of(st.none(), positive), st.one_of(st.none(), positive), st.integers(1, 64))
def test_context_length_is_never_the_training_cut_off_nor_beyond_the_positions(positions, stated, cut_off, factor):
    config = SimpleNamespace(
        max_position_embeddings=positions,
        max_sequence_length=stated,
        tokenizer_model_max_length=cut_off,
        rope_scaling={"type": "linear", "factor": factor},
    )
    found = context_length(config)
    assert found <= positions * factor
    assert found == (positions * factor if stated is None else min(stated, positions * factor))


@given(st.integers(0, 300), st.integers(1, 200), st.integers(1, 200))
def test_answer_limit_and_prompt_fill_the_context_at_most(length, context, wanted):
    if length >= context:
        with pytest.raises(OptionError, match=rf"{length:,} tokens, .* the maximum is {context - 1:,}"):
            answer_limit(length, context, wanted)
    else:
        limit = answer_limit(length, context, wanted)
        assert 1 <= limit <= wanted and length + limit <= context
        assert limit == wanted or length + limit == context


def test_check_prompt_length_names_the_prompt_and_both_numbers():
    check_prompt_length(7, 7)
    with pytest.raises(OptionError, match=r"question 3 has 2,000 tokens, image tokens included; the maximum is 1,023"):
        check_prompt_length(2000, 1023, "question 3")


@pytest.fixture(scope="module")
def cut_in_training(make_checkpoint):
    """A model whose training cut samples at 24 positions, of 64 that its decoder has."""
    folder = make_checkpoint(max_position_embeddings=64, tokenizer_model_max_length=24)
    return open_model({"model_path": str(folder), "device": "cpu"})


def prompt_of(length: int, last: str, tags: int = 1) -> str:
    """A prompt of ``length`` positions for images of 4 positions each, which ends in ``last``."""
    words = length - 1 - 4 * tags - len(last.split())
    return " ".join(["<image>"] * tags + ["w9"] * words + [last])


def asked(loaded, prompt, images, tokens=4):
    return answer(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        prompt,
        images,
        sampling=SamplingParams(max_new_tokens=tokens),
    )


@pytest.mark.parametrize("tags", [1, 2])
def test_last_question_after_the_training_cut_off_changes_the_first_logits(cut_in_training, tags):
    """As one, the first 24 positions of the prompts being equal; and as the same embeddings give in transformers."""
    model = cut_in_training.model
    images = [Image.new("RGB", (16, 16), (200, 30, 60))] * tags
    pixels = process_images(images, cut_in_training.image_processor, model.config)
    seen = []
    for last in ("w20 w21", "w30 w31", "w40 w41"):
        prompt = prompt_of(40, last, tags)
        ids = tokenizer_image_token(prompt, cut_in_training.tokenizer, return_tensors="pt")[None]
        assert prompt_length(ids[0].tolist(), [(16, 16)] * tags, model) == 40
        made = model.generate(
            ids, images=pixels, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        with torch.no_grad():
            batch = model.embed(ids, images=pixels)
            expected = model(inputs_embeds=batch.embeds).logits[:, -1]
        assert batch.embeds.shape[1] == 40
        torch.testing.assert_close(made.logits[0], expected, atol=1e-5, rtol=0)
        seen.append(expected)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_answer_of_a_prompt_that_fits_ends_with_the_context(cut_in_training, monkeypatch):
    monkeypatch.setattr(cut_in_training.model.generation_config, "eos_token_id", None)
    image = Image.new("RGB", (16, 16))
    found = asked(cut_in_training, prompt_of(60, "w5"), [image], tokens=100)
    assert (len(found.token_ids), found.finish_reason) == (4, "length")
    assert len(asked(cut_in_training, prompt_of(63, "w5"), [image], tokens=100).token_ids) == 1


@pytest.mark.parametrize("length", [64, 65, 300])
def test_answer_of_a_prompt_that_fills_the_context_raises_with_both_numbers(cut_in_training, length):
    with pytest.raises(OptionError, match=rf"has {length} tokens, image tokens included; the maximum is 63"):
        asked(cut_in_training, prompt_of(length, "w5"), [Image.new("RGB", (16, 16))])
