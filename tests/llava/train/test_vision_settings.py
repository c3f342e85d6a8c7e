"""Vision settings: flags, else the checkpoint's values, and what of them a config gets."""

import re
from types import SimpleNamespace

import pytest

from llava.errors import CheckpointError, OptionError
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.vision_settings import VisionSettings


@pytest.fixture
def resolve(tmp_path):
    """``resolve(config, **flags)``: the settings of these flags and this config."""

    def make(config, model=None, data=None, **training):
        arguments = {
            ModelArguments: ModelArguments(**(model or {})),
            DataArguments: DataArguments(**(data or {})),
            TrainingArguments: TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training),
        }
        return VisionSettings.resolve(SimpleNamespace(**config), arguments)

    return make


LLAVA = {"mm_vision_tower": "tower", "mm_vision_select_layer": -2, "mm_projector_type": "mlp2x_gelu"}


def test_language_model_without_a_tower_has_no_settings(resolve):
    assert resolve({}) is None


def test_checkpoints_values_hold_where_flags_have_their_defaults(resolve):
    settings = resolve(LLAVA, model={"mm_projector_type": "identity"})
    assert (settings.vision_tower, settings.mm_vision_select_layer) == ("tower", -2)
    assert settings.mm_projector_type == "identity"
    assert settings.mm_patch_merge_type == "flat", "which the checkpoint does not name"


def test_checkpoints_values_are_ignored_with_another_tower(resolve):
    settings = resolve(LLAVA, model={"vision_tower": "other"})
    assert (settings.vision_tower, settings.mm_vision_select_layer) == ("other", -1)


def test_arguments_are_not_changed(resolve, tmp_path):
    model = ModelArguments()
    arguments = {
        ModelArguments: model,
        DataArguments: DataArguments(),
        TrainingArguments: TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
    }
    VisionSettings.resolve(SimpleNamespace(**LLAVA), arguments)
    assert model == ModelArguments()


@pytest.mark.parametrize("aspect", ["Pad", "padding", "", "crop", "none"])
def test_aspect_ratio_that_no_llava_is_trained_with_is_refused(resolve, aspect):
    with pytest.raises(OptionError, match=f"--image_aspect_ratio is '{aspect}'; expected square, pad"):
        resolve(LLAVA, data={"image_aspect_ratio": aspect})


def test_anyres_needs_sizes_from_flag_or_checkpoint(resolve):
    anyres = {"image_aspect_ratio": "anyres"}
    with pytest.raises(OptionError, match="needs --image_grid_pinpoints"):
        resolve(LLAVA, data=anyres)
    assert resolve({**LLAVA, "image_grid_pinpoints": [[4, 8]]}, data=anyres).image_grid_pinpoints == [[4, 8]]
    given = {**anyres, "image_grid_pinpoints": "[[8, 4]]"}
    assert resolve({**LLAVA, "image_grid_pinpoints": [[4, 8]]}, data=given).image_grid_pinpoints == [[8, 4]]


def test_counts_of_crops_are_kept_as_they_are_given(resolve):
    """The side of a crop is the vision tower's, which is not read yet."""
    given = {"image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": "(1x1),...,(6x6)"}
    settings = resolve(LLAVA, data=given)
    assert (settings.image_aspect_ratio, settings.image_grid_pinpoints) == ("anyres_max_9", "(1x1),...,(6x6)")
    with pytest.raises(OptionError, match="anyres_max_9 needs --image_grid_pinpoints"):
        resolve(LLAVA, data={"image_aspect_ratio": "anyres_max_9"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_aspect_ratio", "anyres_max_x"), ("image_aspect_ratio", "highres"), ("image_grid_pinpoints", "(1x1),6x6")],
)
def test_aspect_ratio_and_sizes_of_another_form_raise(resolve, name, value):
    with pytest.raises(CheckpointError, match=rf"{name} is '{re.escape(value)}'"):
        resolve(LLAVA, data={"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[[8, 4]]", name: value})


def test_sizes_are_ignored_without_anyres(resolve):
    assert resolve(LLAVA, data={"image_grid_pinpoints": "[[8, 4]]"}).image_grid_pinpoints is None


def test_config_gets_the_settings_and_the_tokenizers_sizes(resolve):
    settings = resolve(LLAVA, data={"image_aspect_ratio": "pad"}, mm_projector_lr=0.5)
    config = SimpleNamespace(image_grid_pinpoints=[[1, 1]])
    settings.apply(config, SimpleNamespace(padding_side="right", model_max_length=64))
    assert (config.image_aspect_ratio, config.mm_projector_lr) == ("pad", 0.5)
    assert (config.tokenizer_padding_side, config.tokenizer_model_max_length) == ("right", 64)
    assert config.image_grid_pinpoints == [[1, 1]], "kept, as the run does not set it"
    assert not hasattr(config, "pretrain_mm_mlp_adapter") and not hasattr(config, "vision_tower")
