"""Opening what a program's flags name: path, plug-ins, template, and how long prompts with images get."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.hookspecs import hookimpl
from llava.mm_utils import process_images
from llava.model.loaded_model import chosen_path, open_model
from llava.plugins import plugin_manager

SIZES = [(20, 30), (60, 20), (10, 90), (16, 16)]  # width, height
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[48, 16], [16, 32], [32, 32]]}


class Plugin:
    """Names a default model, and notes what is loaded, and the options of the models that it prepares."""

    def __init__(self, path):
        self.path, self.prepared, self.announced = path, [], []

    @hookimpl
    def default_model_path(self):
        return self.path

    @hookimpl
    def before_loading(self, options, path, device):
        assert not self.prepared
        self.announced.append((path, device, options["mark"], options["load_8bit"]))

    @hookimpl
    def prepare_model(self, model, options):
        self.prepared.append(dict(options))


@pytest.fixture
def plugin(tiny_checkpoint):
    plugin = Plugin(str(tiny_checkpoint))
    plugin_manager().register(plugin)
    yield plugin
    plugin_manager().unregister(plugin)


def opened(folder, **options):
    return open_model({"model_path": str(folder), "device": "cpu", **options})


def test_chosen_path_prefers_the_given_one(plugin):
    assert chosen_path("given") == "given"
    assert chosen_path(None) == plugin.path


def test_chosen_path_without_any_raises(monkeypatch):
    class NoDefaults:
        def default_model_path(self):
            return [None]

    monkeypatch.setattr("llava.model.loaded_model.hooks", NoDefaults)
    with pytest.raises(OptionError, match="--model-path is missing"):
        chosen_path(None)


def test_open_model_without_path_opens_the_default_and_prepares_it(plugin):
    loaded = open_model({"model_path": None, "device": "cpu", "mark": 7})
    assert loaded.name == "checkpoint" and loaded.takes_images
    assert plugin.announced == [(plugin.path, "cpu", 7, False)]
    assert plugin.prepared == [{"model_path": None, "device": "cpu", "mark": 7}]


def test_open_model_template_is_the_flags_else_the_models_else_by_name(make_checkpoint, tiny_checkpoint):
    assert opened(tiny_checkpoint).template == conv_templates["llava_v1"]
    assert opened(tiny_checkpoint, model_name="mistral-x").template == conv_templates["mistral_instruct"]
    trained = make_checkpoint(conv_mode="plain")
    assert opened(trained).template == conv_templates["plain"] and opened(trained).conv_mode == "plain"
    assert opened(trained, conv_mode="v0").template == conv_templates["v0"]


def test_open_model_unknown_conv_mode_raises(tiny_checkpoint):
    with pytest.raises(OptionError, match="--conv-mode is 'nope'"):
        opened(tiny_checkpoint, conv_mode="nope")


def test_open_model_context_ends_at_the_models_last_position(tiny_checkpoint):
    assert opened(tiny_checkpoint).context_length == 256


@pytest.mark.parametrize(
    ("aspect", "merge", "feature"),
    [
        ({}, "flat", "patch"),
        ({}, "flat", "cls_patch"),
        ({}, "spatial_unpad", "patch"),
        (ANYRES, "flat", "patch"),
        (ANYRES, "flat", "cls_patch"),
        (ANYRES, "spatial", "patch"),
        (ANYRES, "spatial_unpad", "patch"),
    ],
    ids=lambda value: "anyres" if value == ANYRES else str(value or "pad"),
)
def test_image_positions_are_those_that_the_decoder_gets(make_checkpoint, merge, feature, aspect):
    loaded = opened(make_checkpoint(**aspect, mm_patch_merge_type=merge, mm_vision_select_feature=feature))
    for size in SIZES:
        image = Image.new("RGB", size, (200, 40, 40))
        pixels = process_images([image], loaded.image_processor, loaded.model.config)
        ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5]])
        with torch.no_grad():
            *_, embeds, _ = loaded.model.prepare_inputs_labels_for_multimodal(
                ids, None, None, None, None, pixels, [size]
            )
        assert embeds.shape[1] - 2 == loaded.image_positions(size)


def test_opening_a_model_prints_nothing(tiny_checkpoint):
    options = {"model_path": str(tiny_checkpoint), "device": "cpu"}
    code = f"from llava.model.loaded_model import open_model; open_model({options})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
