"""The requests of a hostile load: how many of each kind, and what they carry."""

import base64
import io
import json

import pytest
from PIL import Image

from ada.bench.hostile.workload import CANCELLED, SHARES, SIZES, SMALL, draw_hostile, draw_small, image_url


def test_draws_are_the_same_for_the_same_seed() -> None:
    assert draw_small(50, 3) == draw_small(50, 3) != draw_small(50, 4)
    assert draw_hostile(50, 5, 3) == draw_hostile(50, 5, 3) != draw_hostile(50, 5, 4)


def test_draws_have_the_number_and_the_kinds() -> None:
    small, hostile = draw_small(200, 0), draw_hostile(400, 80, 0)
    assert len(small) == 200 and {request.kind for request in small} == set(SMALL)
    assert len(hostile) == 400 and sum(request.kind == CANCELLED for request in hostile) == 80
    assert {request.kind for request in hostile} == {CANCELLED, *SHARES}
    assert all(request.is_small for request in small) and not any(request.is_small for request in hostile)


@pytest.mark.parametrize("kind", SIZES)
def test_image_has_its_size(kind) -> None:
    data = base64.b64decode(image_url(kind).partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == SIZES[kind] and len(data) < 8 * 2**20, "a worker takes 8 MiB"


def test_body_is_a_chat_with_its_image() -> None:
    request = next(request for request in draw_hostile(50, 0, 0) if request.kind == "thin image")
    body = json.loads(json.dumps(request.body("tiny", 5)))
    text, image = body["messages"][0]["content"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 5, 0)
    assert text["text"] == request.question and image["image_url"]["url"] == image_url("thin image")
