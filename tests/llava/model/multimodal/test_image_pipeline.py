"""Pixels of images: the same in training and in answering, whatever the aspect ratio, the mode and the batch."""

import json
import weakref
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageFilter
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from llava.conversation import conv_templates
from llava.errors import ImageError
from llava.mm_utils import process_images
from llava.model.multimodal import image_pipeline
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages, expand2square
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


# Width and height of images whose square would be more than four times their pixels, and of some that lie at the limit.
ORDINARY = [(2048, 512), (1000, 250), (400, 25), (25, 400), (700, 700), (999, 61)]
LARGE = [(2400, 1801), (1700, 2300)]
THIN = [(3000, 1), (1, 3000), (2049, 500), (500, 2049), (3001, 7), (8, 2500), (2200, 33), (2048, 1), (1, 2048)]
ROUNDING = 1 / 255 / 0.26 * 1.01  # one step of 8 bits, in the processor's pixels


def slowly(image, processor, aspect):
    """The pixels without any care for memory."""
    if aspect == "pad":
        image = expand2square(image, tuple(int(channel * 255) for channel in processor.image_mean))
    return processor(image, return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", THIN, ids=str)
def test_pixels_of_thin_images_are_those_of_the_slow_way(processor, aspect, size):
    image = noise(size).filter(ImageFilter.GaussianBlur(2))  # where Pillow's order of passes decides what it cuts off
    found = ImagePipeline(processor, SimpleNamespace(image_aspect_ratio=aspect)).pixels(image)
    assert (found - slowly(image, processor, aspect)).abs().max() <= ROUNDING
    if size[0] > size[1]:
        assert torch.equal(found, slowly(image, processor, aspect)), "in Pillow's own order"


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", [*ORDINARY, *(pytest.param(size, marks=pytest.mark.slow) for size in LARGE)], ids=str)
def test_pixels_of_ordinary_images_are_exactly_upstreams(processor, aspect, size):
    image = noise(size)
    found = ImagePipeline(processor, SimpleNamespace(image_aspect_ratio=aspect)).pixels(image)
    assert torch.equal(found, slowly(image, processor, aspect))


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535), (20_000, 1), (1, 16_000), (9000, 2)], ids=str)
def test_pixels_of_thin_images_make_no_large_image(processor, config, size, monkeypatch):
    """Every image on the way has less than 5 million pixels; the square of 20,000 has 400 million."""
    made, new = [], Image.new
    resize = Image.Image.resize

    def recorded_new(mode, size, *args):
        made.append(size)
        return new(mode, size, *args)

    def recorded_resize(self, size, *args, **options):
        made.append(size)
        return resize(self, size, *args, **options)

    image = new("RGB", size)
    monkeypatch.setattr(Image, "new", recorded_new)
    monkeypatch.setattr(Image.Image, "resize", recorded_resize)
    assert ImagePipeline(processor, config).pixels(image).shape[-2:] == (SIDE, SIDE)
    assert made and max(width * height for width, height in made) < 5_000_000


def test_pixels_of_a_wide_photograph_are_exact_without_its_square(processor, monkeypatch):
    image = noise((900, 700))
    expected = slowly(image, processor, "pad")
    monkeypatch.setattr(image_pipeline, "SMALL_SQUARE", 899 * 899)
    monkeypatch.setattr(image_pipeline, "expand2square", lambda *_: pytest.fail("a square"))
    found = ImagePipeline(processor, SimpleNamespace(image_aspect_ratio="pad")).pixels(image)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pixels_of_16_bits_and_floats_are_scaled(processor, config, mode):
    values = {"I;16": 51400, "I": 51400, "F": 200 / 255}
    grey = ImagePipeline(processor, config).pixels(Image.new("RGB", (20, 30), (200, 200, 200)))
    assert torch.equal(ImagePipeline(processor, config).pixels(Image.new(mode, (20, 30), values[mode])), grey)


def test_prepare_reads_one_image_at_a_time(processor, config):
    """An image is let go before the next one is opened."""
    opened = []

    def open_each():
        for size in SIZES:
            assert not any(image() for image in opened)
            image = noise(size)
            opened.append(weakref.ref(image))
            yield image
            del image

    pipeline = ImagePipeline(processor, config)
    prepared = pipeline.prepare(open_each(), len(SIZES))
    assert prepared.sizes == tuple(SIZES) and len(prepared) == 3
    shapes = [tuple(image.shape) for image in prepared.pixels]
    assert shapes == [tuple(pipeline.pixels(noise(size), len(SIZES)).shape) for size in SIZES]
    halved = prepared.to(dtype=torch.float16)
    assert all(image.dtype == torch.float16 for image in halved.pixels)


def test_prepared_images_of_none_are_empty(processor, config):
    assert ImagePipeline(None, config).prepare([], 0) == PreparedImages() and not PreparedImages()
    assert PreparedImages().to(dtype=torch.float16).pixels is None
