"""The whole model, against transformers' own LLaVA and against itself."""

import copy
import json
import pickle

import pytest
import torch
from fixtures.training import layer_runs
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlavaForConditionalGeneration,
)
from transformers import LlavaConfig as HubLlavaConfig

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, ImageError, OptionError
from llava.model import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_decoder import LlavaCausalLM

IMAGE = IMAGE_TOKEN_INDEX
EXACT = {"rtol": 0, "atol": 1e-5}  # float32, values of about 1


def hub_model(model):
    """transformers' own LLaVA with the same weights."""
    text = {key: value for key, value in model.config.to_dict().items() if not key.startswith("mm_")}
    text.pop("model_type")
    tower = model.get_vision_tower().vision_tower.vision_model
    config = HubLlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(**text),
        image_token_index=model.config.vocab_size - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    hub = LlavaForConditionalGeneration(config).eval()
    hub.model.vision_tower.load_state_dict(tower.state_dict())
    language = {
        key.removeprefix("model."): value
        for key, value in model.state_dict().items()
        if "vision_tower" not in key and "mm_projector" not in key and not key.startswith("lm_head")
    }
    hub.model.language_model.load_state_dict(language)
    hub.lm_head.load_state_dict(model.lm_head.state_dict())
    projector = model.model.mm_projector
    hub.model.multi_modal_projector.linear_1.load_state_dict(projector[0].state_dict())
    hub.model.multi_modal_projector.linear_2.load_state_dict(projector[2].state_dict())
    return hub, config.image_token_index


def test_forward_equals_transformers_own_llava(model, pixels):
    hub, tag = hub_model(model)
    ids = torch.tensor([[1, 5, IMAGE, 7, IMAGE, 8]])
    patches = model.get_vision_tower().num_patches
    spelled = [token for i in ids[0].tolist() for token in ([tag] * patches if i == IMAGE else [i])]
    with torch.no_grad():
        ours = model(ids, images=pixels[:2]).logits
        theirs = hub(input_ids=torch.tensor([spelled]), pixel_values=pixels[:2]).logits
    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_generate_in_a_batch_equals_one_by_one(model, pixels, side):
    rows = [[1, 5, IMAGE, 7], [1, IMAGE, 8, 9, 10, IMAGE], [1, 11, 12]]
    images = [pixels[:1], pixels[1:3], None]
    width = max(map(len, rows))
    padded = {
        "left": lambda row, x: [x] * (width - len(row)) + row,
        "right": lambda row, x: row + [x] * (width - len(row)),
    }
    ids = torch.tensor([padded[side](row, 0) for row in rows])
    mask = torch.tensor([padded[side]([1] * len(row), 0) for row in rows])
    model.config.tokenizer_padding_side = side
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        batch = model(ids, attention_mask=mask, images=pixels)
        new_mask = model.prepare_inputs_labels_for_multimodal(ids, None, mask, None, None, pixels)[2]
        tokens = model.generate(ids, attention_mask=mask, images=pixels, do_sample=False, max_new_tokens=6)
    for number, (row, own) in enumerate(zip(rows, images, strict=True)):
        with torch.no_grad():
            alone = model(torch.tensor([row]), images=own).logits[0]
        torch.testing.assert_close(batch.logits[number][new_mask[number].bool()], alone, **EXACT)
        answer = model.generate(torch.tensor([row]), images=own, do_sample=False, max_new_tokens=6)
        assert tokens[number].tolist() == answer[0].tolist()


def test_generate_text_batch_without_mask(model):
    """Text rows need no images; a prompt of ids alone answers as the plain language model."""
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    found = model.generate(ids, do_sample=False, max_new_tokens=4)
    plain = super(LlavaCausalLM, model).generate(ids, do_sample=False, max_new_tokens=4)
    assert found.tolist() == plain[:, 3:].tolist()


def test_prepare_inputs_of_unequal_rows_makes_a_mask(model, pixels):
    """Rows of unequal length after the splice: upstream attends to the padding."""
    ids = torch.tensor([[1, 5, IMAGE], [1, 5, 6]])
    mask = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels[:1])[2]
    assert mask.sum(dim=1).tolist() == [2 + 4, 3]


def test_forward_eager_and_sdpa_agree(model, pixels):
    ids = torch.tensor([[1, 5, IMAGE, 7], [1, 6, 8, 9]])
    with torch.no_grad():
        fused = model(ids, images=pixels[:2]).logits
        model.set_attn_implementation("eager")
        plain = model(ids, images=pixels[:2]).logits
    torch.testing.assert_close(fused[0], plain[0], **EXACT)
    torch.testing.assert_close(fused[1, :4], plain[1, :4], **EXACT)


def test_forward_with_kv_cache_equals_without(model, pixels):
    ids = torch.tensor([[1, 5, IMAGE, 7]])
    model.generation_config.eos_token_id = None
    found = model.generate(ids, images=pixels[:1], do_sample=False, max_new_tokens=5)
    slow = model.generate(ids, images=pixels[:1], do_sample=False, max_new_tokens=5, use_cache=False)
    assert found.tolist() == slow.tolist()


def test_prepare_inputs_for_generation_keeps_images(model, pixels):
    """From token ids, transformers' own loop carries the images to the first step, and only there they count."""
    ids = torch.tensor([[1, 5, IMAGE, 7]])
    step = model.prepare_inputs_for_generation(ids, images=pixels[:1], image_sizes=[(16, 16)], use_cache=True)
    assert step["images"] is not None
    assert step["image_sizes"] == [(16, 16)]


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_backward_reaches_all_but_the_tower(model, pixels, reentrant):
    """The projector and the decoder learn, the tower does not; checkpointing changes nothing."""
    ids = torch.tensor([[1, 5, IMAGE, 7], [1, 6, 8, 9]])
    mask, labels = torch.ones_like(ids), ids.clone()

    def gradients(passes):
        model.zero_grad()
        model.train()
        with layer_runs() as runs:
            model(ids, attention_mask=mask, labels=labels, images=pixels[:2]).loss.backward()
        assert len(runs) == passes * len(model.model.layers)
        return {
            key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None
        }

    before = gradients(passes=1)
    assert not any("vision_tower" in key for key in before)
    assert before["model.mm_projector.0.weight"].abs().sum() > 0
    if reentrant is not None:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        after = gradients(passes=2)
        assert before.keys() == after.keys()
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-6)


def test_forward_passes_other_keywords_to_every_layer(model, pixels):
    seen = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda *args: seen.append(args[2].pop("note")), with_kwargs=True)
    model(torch.tensor([[1, IMAGE]]), images=pixels[:1], note="here")
    assert seen == ["here"] * len(model.model.layers)


def test_generate_with_wrong_inputs_raises(model, pixels):
    with pytest.raises(ImageError, match=r"1 image tag.*no image given"):
        model(torch.tensor([[1, IMAGE]]))
    with pytest.raises(ImageError, match=r"2 image tag.*1 image"):
        model.generate(torch.tensor([[1, IMAGE, IMAGE]]), images=pixels[:1])
    with pytest.raises(OptionError, match="inputs_embeds"):
        model.generate(torch.tensor([[1]]), inputs_embeds=torch.zeros(1, 1, 32))
    with pytest.raises(OptionError, match="token ids"):
        model.generate(images=pixels)
    with pytest.raises(ImageError, match=r"2 image.* 1 image_sizes"):
        model(torch.tensor([[1, IMAGE, IMAGE]]), images=[pixels[0], pixels[1]], image_sizes=[(3, 4)])


def test_forward_with_an_unread_tower_raises(tiny_checkpoint, pixels):
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint)
    assert not model.get_vision_tower().is_loaded
    assert not any("vision_tower" in key for key in model.state_dict())
    with pytest.raises(CheckpointError, match="load_model"):
        model(torch.tensor([[1, IMAGE]]), images=pixels[:1])


def test_config_is_readable_by_old_and_new_releases(tiny_checkpoint):
    written = json.loads((tiny_checkpoint / "config.json").read_text())
    assert written["model_type"] == "llava_llama"
    assert written["rope_theta"] == 5000.0
    assert written["rope_scaling"] is None
    assert written["torch_dtype"] == "float32"
    assert written["mm_vision_tower"] == "tower"
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert isinstance(config, LlavaConfig)
    assert config.rope_parameters["rope_theta"] == 5000.0
    assert isinstance(AutoModelForCausalLM.from_pretrained(tiny_checkpoint), LlavaLlamaForCausalLM)
    assert pickle.loads(pickle.dumps(config)).to_dict() == config.to_dict()


def of_rope(rope):
    """The settings of a rotary embedding, by their names of now alone."""
    return {key: value for key, value in rope.items() if key != "type"}


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
@pytest.mark.parametrize("factor", [2, 2.0, 2.5])
@pytest.mark.parametrize("old", [True, False])
def test_config_keeps_a_scaled_rope_as_older_releases_read_it(kind, factor, old):
    """transformers 4.37 checks that there are two fields, and that the factor is a float above 1."""
    named = {"rope_scaling": {"type": kind, "factor": factor}, "rope_theta": 7000.0}
    of_now = {"rope_parameters": {"rope_type": kind, "factor": factor, "rope_theta": 7000.0}}
    config = LlavaConfig(**(named if old else of_now))
    written = json.loads(config.to_json_string())
    assert written["rope_scaling"] == {"type": kind, "factor": factor} and written["rope_theta"] == 7000.0
    assert isinstance(written["rope_scaling"]["factor"], float)
    again = LlavaConfig.from_dict(copy.deepcopy(written))
    assert of_rope(again.rope_parameters) == of_rope(config.rope_parameters)
    assert of_rope(again.rope_parameters) == {"rope_type": kind, "factor": factor, "rope_theta": 7000.0}
    assert json.loads(again.to_json_string())["rope_scaling"] == written["rope_scaling"]


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 7000.0},
        {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 7000.0},
    ],
    ids=str,
)
def test_config_keeps_every_field_of_a_rope_that_is_more_than_a_factor(rope):
    config = LlavaConfig(rope_parameters=dict(rope))
    again = LlavaConfig.from_dict(json.loads(config.to_json_string()))
    assert of_rope(again.rope_parameters) == of_rope(config.rope_parameters) == rope


def test_forward_takes_upstreams_arguments_by_position(model, pixels):
    """After ids, mask, positions, cache, embeddings, labels and use_cache: attentions, states, images, sizes, dict."""
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 6]])
    sizes = [(16, 16)]
    outputs = model(ids, None, None, None, None, None, None, False, True, pixels[:1], sizes, True)
    assert torch.equal(outputs.logits, model(ids, images=pixels[:1]).logits)
    assert len(outputs.hidden_states) == 3 and outputs.attentions is None
    as_tuple = model(ids, None, None, None, None, None, None, None, None, pixels[:1], sizes, False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], outputs.logits)
