"""Pixels of images: the same in training and in answering, whatever the aspect ratio, the mode and the batch."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from llava.conversation import conv_templates
from llava.errors import ImageError
from llava.mm_utils import process_images
from llava.model.multimodal.image_pipeline import ImagePipeline
from llava.train.data.dataset import LazySupervisedDataset

SIDE = 16
SIZES = [(20, 30), (60, 20), (16, 16)]  # width, height
CONFIGS = {
    "pad": {"image_aspect_ratio": "pad"},
    "square": {"image_aspect_ratio": "square"},
    "none": {},
    "anyres": {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [48, 16]]},
    "anyres_max": {"image_aspect_ratio": "anyres_max_2", "image_grid_pinpoints": "(1x1),...,(3x3)"},
}


@pytest.fixture(scope="module", params=["clip", "siglip", "uncropped"])
def processor(request):
    size = {"height": SIDE, "width": SIDE}
    if request.param == "siglip":
        return SiglipImageProcessorPil(size=size)
    if request.param == "uncropped":
        return CLIPImageProcessorPil(size=size, do_center_crop=False)  # whose default crop is 224
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)


@pytest.fixture(params=CONFIGS)
def config(request):
    return SimpleNamespace(**CONFIGS[request.param])


def noise(size, mode="RGB"):
    return Image.effect_noise(size, 90).convert(mode)


def test_batch_is_the_pixels_of_each_image(processor, config):
    pipeline, images = ImagePipeline(processor, config), [noise(size) for size in SIZES]
    for found, image in zip(pipeline.batch(images, [1, 1, 1]), images, strict=True):
        assert torch.equal(found, pipeline.pixels(image))


def test_batch_of_equal_shapes_is_one_tensor(processor):
    pixels = ImagePipeline(processor, SimpleNamespace(**CONFIGS["pad"])).batch([noise(size) for size in SIZES])
    assert isinstance(pixels, torch.Tensor) and pixels.shape == (3, 3, SIDE, SIDE)


def test_batch_of_unequal_crops_is_a_list(processor):
    pixels = ImagePipeline(processor, SimpleNamespace(**CONFIGS["anyres"])).batch([noise(size) for size in SIZES])
    assert [len(image) for image in pixels] == [3, 4, 3]


def test_batch_pads_the_images_of_a_prompt_with_several_under_a_limit(processor):
    images = [noise(size) for size in SIZES]
    padded = ImagePipeline(processor, SimpleNamespace(**CONFIGS["pad"]))
    pipeline = ImagePipeline(processor, SimpleNamespace(**CONFIGS["anyres_max"]))
    first, *others = pipeline.batch(images, [1, 2])
    assert torch.equal(first, pipeline.pixels(images[0])) and len(first) > 2
    for found, image in zip(others, images[1:], strict=True):
        assert torch.equal(found, padded.pixels(image)[None])
    assert torch.equal(pipeline.batch(images), torch.stack([padded.pixels(image)[None] for image in images]))


@pytest.mark.parametrize("counts", [[1, 1], [4], [3, 1], []], ids=str)
def test_batch_whose_prompts_have_other_numbers_of_images_raises(processor, counts):
    pipeline = ImagePipeline(processor, SimpleNamespace(**CONFIGS["anyres_max"]))
    with pytest.raises(ImageError, match=rf"{sum(counts)} image tag\(s\) in the prompts, but 3 image\(s\) given"):
        pipeline.batch([noise(size) for size in SIZES], counts)


@pytest.mark.parametrize("name", ["pad", "square", "none"])  # anyres resizes an image with its transparency
def test_pixels_drop_transparency(processor, name):
    image = noise((20, 30))
    transparent = image.copy()
    transparent.putalpha(Image.effect_noise((20, 30), 90))
    pipeline = ImagePipeline(processor, SimpleNamespace(**CONFIGS[name]))
    assert torch.equal(pipeline.pixels(transparent), pipeline.pixels(image))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_training_sees_the_pixels_of_answering(processor, config, size, tiny_tokenizer, tmp_path):
    image = noise(size)
    image.save(tmp_path / "image.png")
    talk = [{"from": "human", "value": "<image>\nw3"}, {"from": "gpt", "value": "w4"}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": 1, "image": "image.png", "conversations": talk}]))
    arguments = SimpleNamespace(
        **{"image_aspect_ratio": None, **vars(config)},
        image_folder=str(tmp_path),
        image_processor=processor,
        is_multimodal=True,
        mm_use_im_start_end=False,
    )
    dataset = LazySupervisedDataset(str(tmp_path / "data.json"), tiny_tokenizer(), arguments, conv_templates["plain"])
    (answering,) = process_images([image], processor, config)
    assert torch.equal(dataset[0]["image"], answering)


def test_pixels_without_a_vision_tower_raises():
    with pytest.raises(ImageError, match="without a vision tower"):
        ImagePipeline(None, SimpleNamespace()).pixels(noise((4, 4)))
