"""The requests of a load test, and their arrivals."""

import pytest
from PIL import Image

from ada.bench.load.workload import arrivals, image_variants, mixed
from llava.conversation import conv_templates


def test_mixed_requests_repeat_with_the_same_seed() -> None:
    images = image_variants(Image.effect_noise((6, 9), 90))
    assert len(set(images)) == 8
    requests = mixed(200, images, [1.0, 0.5], seed=3)
    assert requests == mixed(200, images, [1.0, 0.5], seed=3) != mixed(200, images, [1.0, 0.5], seed=4)
    assert {request.budget for request in requests} == {1.0, 0.5}
    assert 20 < sum(request.image is None for request in requests) < 90
    for request in requests:
        body = request.body("m", conv_templates["v1"], 5)
        assert body["prompt"].count("<image>") == len(body["images"]) and body["temperature"] == 0
        assert body["prompt"].endswith(f"{request.words} ASSISTANT:")


def test_arrivals_come_at_the_given_rate() -> None:
    times = arrivals(4000, 20.0)
    assert times == sorted(times) and times[-1] == pytest.approx(200, rel=0.1)
