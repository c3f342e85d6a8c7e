"""Where samples are cut, against a position-by-position count and against what the model itself cuts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.loaded_model import open_model
from llava.train.data.sample_length import count_labels, ids_within, starts_of

ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]}


@given(st.lists(st.sampled_from([5, 6, IMAGE_TOKEN_INDEX]), max_size=12), st.integers(0, 40), st.data())
def test_ids_within_equals_a_count_position_by_position(ids, limit, data):
    images = [data.draw(st.integers(1, 9)) for token in ids if token == IMAGE_TOKEN_INDEX]
    widths, position, expected = iter(images), 0, 0
    for token in ids:
        expected += position < limit
        position += next(widths) if token == IMAGE_TOKEN_INDEX else 1
    assert ids_within(torch.tensor(ids, dtype=torch.long), images, limit) == expected
    assert int(starts_of(torch.tensor(ids, dtype=torch.long), images)[-1]) == position


@pytest.mark.parametrize(
    "changes",
    [{}, ANYRES, {**ANYRES, "mm_patch_merge_type": "spatial_unpad"}],
    ids=["pad", "anyres", "unpad"],
)
def test_labels_of_a_cut_sample_are_those_that_the_models_cut_leaves(make_checkpoint, changes):
    """Before the image, through it, and after it; several images in a row, too."""
    loaded = open_model({"model_path": str(make_checkpoint(**changes)), "device": "cpu"})
    model = loaded.model
    images = [Image.new("RGB", (40, 10), (200, 10, 10)), Image.new("RGB", (9, 16))]
    ids = torch.tensor([1, 5, IMAGE_TOKEN_INDEX, 6, 7, IMAGE_TOKEN_INDEX, 8, 9, 2])
    labels = torch.where(ids > 5, ids, IGNORE_INDEX)
    pixels = process_images(images, loaded.image_processor, model.config)
    sizes = [image.size for image in images]
    positions = [model.max_image_tokens(size) for size in sizes]
    for limit in range(1, int(starts_of(ids, positions)[-1]) + 2):
        model.config.tokenizer_model_max_length = limit
        with torch.no_grad():
            *_, embeds, cut = model.prepare_inputs_labels_for_multimodal(
                ids[None], None, None, None, labels[None], pixels, sizes
            )
        assert embeds.shape[1] == min(limit, int(starts_of(ids, positions)[-1]))
        kept = labels[: ids_within(ids, positions, limit)]
        assert kept[kept != IGNORE_INDEX].tolist() == cut[cut != IGNORE_INDEX].tolist()
        assert count_labels(kept) == count_labels(cut)
