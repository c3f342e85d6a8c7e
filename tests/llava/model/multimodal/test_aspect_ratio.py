"""``image_aspect_ratio``: which values cut crops, with which limit, and which are errors."""

from types import SimpleNamespace

import pytest

from llava.errors import CheckpointError
from llava.model.multimodal.aspect_ratio import aspect_ratio, crops_of, cuts_crops, max_crops


@pytest.mark.parametrize(
    ("aspect", "cuts", "limit", "of_several"),
    [
        (None, False, None, False),
        ("square", False, None, False),
        ("pad", False, None, False),
        ("anyres", True, None, True),
        ("anyres_max_9", True, 9, False),
        ("anyres_max_12", True, 12, False),
    ],
)
def test_aspect_ratio_says_whether_images_are_cut(aspect, cuts, limit, of_several):
    config = SimpleNamespace(image_aspect_ratio=aspect)
    assert (aspect_ratio(config), cuts_crops(config), max_crops(config)) == (aspect, cuts, limit)
    assert (crops_of(config, 1), crops_of(config, 2)) == (cuts, of_several)


def test_aspect_ratio_of_a_config_without_one_is_none():
    assert aspect_ratio(SimpleNamespace()) is None and not cuts_crops(SimpleNamespace())


@pytest.mark.parametrize(
    "aspect", ["anyres_max_", "anyres_max_0", "anyres_max_-3", "anyres_max_nine", "anyres_9", "highres", "crop_split"]
)
def test_aspect_ratio_that_is_not_supported_raises(aspect):
    with pytest.raises(CheckpointError, match=f"image_aspect_ratio is '{aspect}'; expected .*anyres_max_N"):
        cuts_crops(SimpleNamespace(image_aspect_ratio=aspect))
