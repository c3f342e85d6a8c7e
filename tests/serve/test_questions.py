"""Counted prompt positions against those that enter the decoder."""

import pytest
from PIL import Image

from llava.mm_utils import process_images, tokenizer_image_token
from llava.serve.loaded_model import open_model
from llava.serve.questions import count_tokens

PROMPT = "w5 <image>\nw6 <image> w7"
SIZES = ((16, 16), (40, 10), (9, 50))
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]}


def positions(loaded, images) -> int:
    """Positions of the spliced sequence."""
    ids = tokenizer_image_token(PROMPT, loaded.tokenizer, return_tensors="pt")[None]
    pixels = process_images(images, loaded.image_processor, loaded.model.config)
    sizes = [image.size for image in images]
    spliced = loaded.model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels, sizes)
    return spliced[4].shape[1]


@pytest.mark.parametrize(
    ("changes", "exact"),
    [
        ({}, True),
        (ANYRES, True),
        ({**ANYRES, "mm_patch_merge_type": "spatial"}, True),
        ({**ANYRES, "mm_patch_merge_type": "spatial_unpad"}, False),
    ],
    ids=["pad", "anyres", "spatial", "unpad"],
)
def test_counted_positions(make_checkpoint, changes, exact) -> None:
    loaded = open_model({"model_path": str(make_checkpoint(**changes)), "model_name": "tiny", "device": "cpu"})
    for size in SIZES:
        images = [Image.new("RGB", size), Image.new("RGB", (16, 16))]
        counted, real = count_tokens(PROMPT, tuple(images), loaded), positions(loaded, images)
        if exact:
            assert real == counted
        else:
            assert real <= counted, "never more than was counted"
