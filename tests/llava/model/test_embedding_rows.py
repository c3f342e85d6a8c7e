"""Rows of new tokens in a table that is longer than its tokenizer, as Qwen2's: trained, saved, and loaded again."""

import shutil
from types import SimpleNamespace

import peft
import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model import LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model
from llava.train.runtime.saving import PROJECTOR_FILE, projector_state

WORDS, ROWS = 60, 72  # of the tokenizer and of the table


@pytest.fixture(scope="module")
def base(make_checkpoint):
    """A LLaVA on Qwen2's decoder, without image marks."""
    return make_checkpoint(LlavaQwenForCausalLM, vocab_size=ROWS, num_key_value_heads=2)


def opened(folder, base=None):
    tokenizer, model, *_ = load_pretrained_model(str(folder), base and str(base), "any", device="cpu")
    return tokenizer, model


def with_marks(base, patch=False):
    """The base as training changes it: tokens added, tables as long as the tokenizer; the new rows then learn."""
    tokenizer, model = opened(base)
    flags = {"mm_use_im_start_end": True, "mm_use_im_patch_token": patch}
    for name, value in flags.items():
        setattr(model.config, name, value)
    arguments = SimpleNamespace(tune_mm_mlp_adapter=True, pretrain_mm_mlp_adapter=None, **flags)
    model.initialize_vision_tokenizer(arguments, tokenizer)
    torch.manual_seed(3)
    model.get_input_embeddings().weight.data[-2:] = torch.randn(2, model.config.hidden_size)
    return tokenizer, model


def logits(model, tokenizer):
    """Of a prompt with an image between its marks; for the tokenizer's first words."""
    start, end = tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(torch.tensor([[5, start, IMAGE_TOKEN_INDEX, end, 7]]), images=pixels)
    return found.logits[..., :WORDS]


@pytest.mark.parametrize("patch", [False, True])
def test_projector_with_image_marks_opens_on_a_base_of_a_longer_table(base, tmp_path, patch):
    tokenizer, model = with_marks(base, patch)
    expected = logits(model, tokenizer)
    torch.save(projector_state(model.state_dict(), with_tokens=True), tmp_path / PROJECTOR_FILE)
    model.config.save_pretrained(tmp_path)
    shutil.copytree(base / "tower", tmp_path / "tower")
    found_tokenizer, found = opened(tmp_path, base)
    assert len(found_tokenizer) == found.get_input_embeddings().num_embeddings == WORDS + 2 + patch
    assert found.config.vocab_size == found.get_output_embeddings().out_features == WORDS + 2 + patch
    torch.testing.assert_close(logits(found, found_tokenizer), expected)


def test_adapter_with_image_marks_opens_on_a_base_of_a_longer_table(base, tmp_path):
    tokenizer, model = with_marks(base)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(7)
    wrapped = peft.get_peft_model(model, settings).eval()
    wrapped.save_pretrained(tmp_path)
    in_full = {key: value for key, value in wrapped.state_dict().items() if "embed_tokens" in key or "lm_head" in key}
    torch.save(in_full, tmp_path / "non_lora_trainables.bin")
    model.config.save_pretrained(tmp_path)
    found_tokenizer, found = opened(tmp_path, base)
    torch.testing.assert_close(logits(found, found_tokenizer), logits(wrapped, tokenizer), atol=1e-4, rtol=0)


def test_full_checkpoint_keeps_its_longer_table(base, tmp_path):
    tokenizer, model = opened(base)
    model.config.mm_use_im_start_end = True
    model.save_pretrained(tmp_path)
    shutil.copytree(base / "tower", tmp_path / "tower")
    tokenizer.save_pretrained(tmp_path)
    _, found = opened(tmp_path)
    assert torch.equal(found.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert found.get_input_embeddings().num_embeddings == ROWS
