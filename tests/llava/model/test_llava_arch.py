"""What training sets up: tower, projector, image tokens."""

from types import SimpleNamespace

import pytest
import torch
from fixtures.tiny_models import tower_config
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from llava.errors import CheckpointError
from llava.model import LlavaLlamaForCausalLM
from llava.model.multimodal_projector.builder import IdentityMap


def arguments(**changes):
    settings = {
        "vision_tower": "tower",
        "mm_vision_select_layer": -1,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "mlp2x_gelu",
        "pretrain_mm_mlp_adapter": None,
        "tune_mm_mlp_adapter": False,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
    }
    return SimpleNamespace(**{**settings, **changes})


@pytest.fixture
def plain(make_config):
    """A language model that is no LLaVA yet."""
    torch.manual_seed(0)
    return LlavaLlamaForCausalLM(make_config(mm_vision_tower=None, mm_vision_select_layer=None))


def test_initialize_vision_modules_makes_a_llava(plain, tiny_checkpoint, pixels):
    assert plain.get_vision_tower() is None
    path = str(tiny_checkpoint / "tower")
    plain.model.initialize_vision_modules(arguments(vision_tower=path, mm_patch_merge_type="spatial_unpad"))
    config = plain.config
    assert (config.mm_vision_tower, config.mm_hidden_size, config.use_mm_proj) == (path, 24, True)
    assert (config.mm_vision_select_layer, config.mm_projector_type) == (-1, "mlp2x_gelu")
    assert plain.get_vision_tower().is_loaded
    assert plain.model.image_newline.shape == (32,)
    assert {"model.mm_projector.0.weight", "model.image_newline"} < set(plain.state_dict())
    assert plain.encode_images(pixels).shape == (3, 4, 32)


def test_initialize_vision_modules_gives_an_existing_llava_a_newline(model, pixels):
    """LLaVA-1.5 has a projector and no newline; fine-tuned with "spatial_unpad" it needs one."""
    projector = model.model.mm_projector
    model.model.initialize_vision_modules(arguments(mm_patch_merge_type="spatial_unpad"))
    assert model.model.mm_projector is projector and model.model.image_newline.requires_grad
    newline = model.model.image_newline
    assert torch.equal(model.image_features(pixels[:1, None])[0][-1], newline)
    model.model.initialize_vision_modules(arguments(mm_patch_merge_type="spatial_unpad"))
    assert model.model.image_newline is newline


def test_identity_between_different_widths_raises(model, pixels):
    model.model.mm_projector, model.config.mm_projector_type = IdentityMap(), "identity"
    with pytest.raises(CheckpointError, match=r"have width 24, the language model's embeddings 32;.*'identity'"):
        model(torch.tensor([[1, -200, 5]]), images=pixels[:1])


@pytest.mark.parametrize("width", [12, 48])
def test_tower_of_another_width_than_the_projector_raises(model, pixels, monkeypatch, width):
    """Another tower, or with s2 other scales, than those of the training."""
    monkeypatch.setattr(type(model.get_vision_tower()), "forward", lambda self, images: torch.zeros(1, 4, width))
    with pytest.raises(CheckpointError, match=f"mm_hidden_size is 24, but .* have width {width}"):
        model(torch.tensor([[1, -200, 5]]), images=pixels[:1])


def test_initialize_vision_modules_changes_an_existing_tower(model):
    """What config.json will say is what the tower does."""
    model.model.initialize_vision_modules(arguments(mm_vision_select_layer=-1, mm_vision_select_feature="cls_patch"))
    tower = model.get_vision_tower()
    assert (tower.select_layer, tower.select_feature) == (-1, "cls_patch")


@pytest.mark.parametrize("asked", ["linear", "mlp3x_gelu"])
def test_initialize_vision_modules_refuses_another_type_than_the_projectors(model, asked):
    with pytest.raises(
        CheckpointError, match=f"--mm_projector_type is '{asked}', and .* of type 'mlp2x_gelu'; give that"
    ):
        model.model.initialize_vision_modules(arguments(mm_projector_type=asked))
    assert model.config.mm_projector_type == "mlp2x_gelu"
    given = arguments()
    del given.mm_projector_type  # as a script's arguments may lack it
    model.model.initialize_vision_modules(given)
    assert model.config.mm_projector_type == "mlp2x_gelu"


def test_initialize_vision_modules_refuses_a_tower_that_the_projector_does_not_fit(model, tmp_path):
    wide = tower_config().to_dict() | {"hidden_size": 32}
    CLIPVisionModel(CLIPVisionConfig(**wide)).save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"have width 32, and the model's projector takes 24; leave --vision_tower"
    ):
        model.model.initialize_vision_modules(arguments(vision_tower=str(tmp_path)))
    assert model.config.mm_hidden_size == 24


@pytest.mark.parametrize("prefix", ["model.", "", "base_model.model.model."])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_load_projector_fills_from_a_file(model, tmp_path, prefix, kind):
    tensors = {
        f"{prefix}mm_projector.{key}": torch.randn_like(value)
        for key, value in model.model.mm_projector.state_dict().items()
    }
    path = tmp_path / f"mm_projector.{kind}"
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
    model.model.mm_projector.requires_grad_(False)
    model.model.initialize_vision_modules(arguments(pretrain_mm_mlp_adapter=str(path)))
    for key, value in model.model.mm_projector.state_dict().items():
        assert torch.equal(value, tensors[f"{prefix}mm_projector.{key}"])
    assert all(parameter.requires_grad for parameter in model.model.mm_projector.parameters())


def test_load_projector_that_does_not_fit_raises(model, tmp_path):
    path = tmp_path / "mm_projector.bin"
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2), "model.mm_projector.9.bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as error:
        model.model.load_projector(path)
    for part in ("0.weight is (2, 2), the model needs (32, 24)", "missing: model.mm_projector.0.bias", "9.bias"):
        assert part in str(error.value)


class Tokens:
    """Counts added tokens."""

    def __init__(self, size):
        self.size, self.words = size, []

    def __len__(self):
        return self.size + len(self.words)

    def add_tokens(self, words, special_tokens):
        self.words += words
        return len(words)


def test_new_image_tokens_start_as_the_mean(model):
    before = model.get_input_embeddings().weight.detach().clone()
    tokenizer = Tokens(len(before))
    model.initialize_vision_tokenizer(arguments(mm_use_im_start_end=True, tune_mm_mlp_adapter=True), tokenizer)
    after = model.get_input_embeddings().weight
    assert tokenizer.words == ["<im_start>", "<im_end>"]
    assert torch.equal(after[: len(before)], before)
    torch.testing.assert_close(after[-2:].detach(), before.mean(dim=0).expand(2, -1))
    assert after.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


def test_new_image_tokens_are_filled_from_a_file(model, tmp_path):
    rows = torch.randn(2, 32)
    path = tmp_path / "mm_projector.bin"
    torch.save({"model.embed_tokens.weight": rows}, path)
    flags = {"mm_use_im_start_end": True, "pretrain_mm_mlp_adapter": str(path)}
    model.initialize_vision_tokenizer(arguments(**flags), Tokens(60))
    assert torch.equal(model.get_input_embeddings().weight[-2:].detach(), rows)
    torch.save({"model.embed_tokens.weight": torch.zeros(3, 32)}, path)
    with pytest.raises(CheckpointError, match=r"\(3, 32\); expected \(64, 32\) or \(2, 32\)"):
        model.initialize_vision_tokenizer(arguments(**flags), Tokens(62))
    torch.save({}, path)
    with pytest.raises(CheckpointError, match=r"has no model\.embed_tokens\.weight"):
        model.initialize_vision_tokenizer(arguments(**flags), Tokens(64))


def test_patch_token_alone_freezes_both_tables(model):
    model.initialize_vision_tokenizer(arguments(mm_use_im_patch_token=True, tune_mm_mlp_adapter=True), Tokens(60))
    assert model.get_input_embeddings().num_embeddings == 61
    assert not model.get_input_embeddings().weight.requires_grad
