"""Padding, pixels and crops of images."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil

from llava.mm_utils import (
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
)
from llava.model.multimodal.anyres_merge import unpad_image

# Resampling is Pillow's, in 8 bits: another release may round a channel by one step, 1/255 over a deviation of 0.26.
PIXEL_TOLERANCE = 0.02


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "image.json").read_text())


@pytest.fixture(scope="module")
def processors(recorded):
    return {size: CLIPImageProcessorPil(**settings) for size, settings in recorded["processors"].items()}


def check_bytes(image, expected):
    assert list(image.size) == expected["size_wh"]
    assert image.mode == expected["mode"]
    array = np.asarray(image)
    assert array.reshape(-1)[expected["idx_flat"]].tolist() == expected["values"]
    assert hashlib.sha256(array.tobytes()).hexdigest() == expected["sha256_bytes"]


def check_pixels(pixels, expected):
    assert list(pixels.shape) == expected["shape"]
    assert str(pixels.dtype) == f"torch.{expected['dtype']}"
    values = pixels.reshape(-1)[expected["idx_flat"]]
    assert torch.allclose(values, torch.tensor(expected["values"]), atol=PIXEL_TOLERANCE)
    assert pixels.mean().item() == pytest.approx(expected["mean"], abs=1e-3)
    assert pixels.std(unbiased=False).item() == pytest.approx(expected["std"], abs=1e-3)


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_expand2square(recorded, golden_images, kind):
    for name, expected in recorded["input"][kind].items():
        check_bytes(golden_images[kind][name], expected)
    for name, expected in recorded["expand2square"][kind].items():
        check_bytes(expand2square(golden_images[kind][name], tuple(recorded["background_color"])), expected)


def test_process_images(recorded, golden_images, processors):
    for case in recorded["process_images"]:
        config = SimpleNamespace(image_aspect_ratio=case["image_aspect_ratio"])
        images, processor = golden_images[case["images"]], processors[str(case["processor"])]
        for name, expected in case["each"].items():
            check_pixels(process_images([images[name]], processor, config), expected)
        batch = process_images(list(images.values()), processor, config)
        assert list(batch.shape) == case["batch_of_four"]["shape"]


def test_best_resolution(recorded):
    anyres = recorded["anyres"]
    for case in anyres["select_best_resolution"]:
        for side in (336, 56):
            best = select_best_resolution(tuple(case["size_wh"]), [tuple(p) for p in anyres[f"pinpoints_{side}"]])
            assert list(best) == case[f"result_{side}"], case
    for case in anyres["grid_shape"]:
        for side in (336, 56):
            points = anyres[f"pinpoints_{side}"]
            assert list(get_anyres_image_grid_shape(case["size_wh"], points, side)) == case[f"list_{side}"], case
        points = str(anyres["pinpoints_336"])
        assert list(get_anyres_image_grid_shape(case["size_wh"], points, 336)) == case["string_336"]


def test_crops(recorded, golden_images):
    anyres = recorded["anyres"]
    for kind, cases in anyres["resize_and_pad_image"].items():
        for name, expected in cases.items():
            check_bytes(resize_and_pad_image(golden_images[kind][name], tuple(expected["target"])), expected)
    for name, expected in anyres["divide_to_patches"].items():
        # The file does not say which target was cut; three patches of 56 come from the (168, 56) of its pinpoints.
        patches = divide_to_patches(resize_and_pad_image(golden_images["noise"][name], (168, 56)), 56)
        assert len(patches) == expected["n"]
        assert [list(patch.size) for patch in patches] == expected["sizes"]


def test_anyres_images(recorded, golden_images, processors):
    anyres = recorded["anyres"]
    for case in anyres["process_anyres_image"]:
        image, side = golden_images[case["images"]][case["image"]], str(case["processor"])
        points = anyres[f"pinpoints_{side}"]
        check_pixels(process_anyres_image(image, processors[side], points), case)


def test_crops_of_several_images(recorded, golden_images, processors):
    """The kind of image is not recorded; shapes do not depend on it."""
    points = recorded["anyres"]["pinpoints_56"]
    config = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=points)
    pixels = process_images(list(golden_images["noise"].values()), processors["56"], config)
    expected = recorded["anyres"]["process_images_anyres_mixed"]
    assert type(pixels).__name__ == expected["type"]
    assert [list(crops.shape) for crops in pixels] == expected["shapes"]


def test_unpad(recorded):
    for case in recorded["anyres"]["unpad_image"]["cases"]:
        height, width = case["current_hw"]
        padded = torch.arange(height * width).view(1, height, width)
        part = unpad_image(padded, tuple(case["original_size_wh"]))
        assert list(part.shape) == case["result_shape"], case
        if part.numel():
            assert [part.flatten()[0].item(), part.flatten()[-1].item()] == [case["first"], case["last"]], case
