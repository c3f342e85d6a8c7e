"""Images are known while the features of every one of their crops are kept."""

from __future__ import annotations

import torch

from ada.reuse.cache import ReuseCache
from ada.reuse.known_images import MAX_IMAGES, KnownImages


def test_image_is_known_once_all_of_its_crops_are_encoded() -> None:
    cache = ReuseCache(1e6)
    images = KnownImages(cache)
    one, two = torch.rand(3, 4, 4), torch.rand(2, 3, 4, 4)
    images.add(["one", "two"], [one, two])
    assert images.keys() == frozenset()
    cache.add_features(one, torch.zeros(2, 8))
    cache.add_features(two[0], torch.zeros(2, 8))
    assert images.keys() == {"one"}
    cache.add_features(two[1], torch.zeros(2, 8))
    assert images.keys() == {"one", "two"}


def test_image_is_not_known_after_its_features_had_to_go() -> None:
    features = torch.zeros(10, 8)
    cache = ReuseCache(1.5 * features.nbytes)
    images, crops = KnownImages(cache), torch.rand(2, 3, 4, 4)
    images.add(["old", "new"], list(crops))
    for crop in crops:
        cache.add_features(crop, features)
    assert images.keys() == {"new"}


def test_nothing_is_known_without_a_cache_and_only_the_last_images_are_remembered() -> None:
    nothing = KnownImages(None)
    nothing.add(["one"], [torch.rand(3, 4, 4)])
    nothing.add(["two"], None)
    assert nothing.keys() == frozenset()
    cache = ReuseCache(1e6)
    images, crop = KnownImages(cache), torch.rand(3, 4, 4)
    cache.add_features(crop, torch.zeros(1, 8))
    for number in range(MAX_IMAGES + 1):
        images.add([str(number)], [crop])
    keys = images.keys()
    assert len(keys) == MAX_IMAGES and "0" not in keys


def test_image_that_is_asked_about_again_is_remembered() -> None:
    cache = ReuseCache(1e6)
    images, crop = KnownImages(cache), torch.rand(3, 4, 4)
    cache.add_features(crop, torch.zeros(1, 8))
    for name in ("first", *map(str, range(MAX_IMAGES - 1)), "first", "last"):
        images.add([name], [crop])
    keys = images.keys()
    assert {"first", "last"} <= keys and "0" not in keys and len(keys) == MAX_IMAGES
