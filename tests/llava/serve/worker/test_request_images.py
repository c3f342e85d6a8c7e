"""Images of requests: at the model's size before they wait, turned upright, read where they delay nobody."""

import asyncio
import base64
import gc
import io
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from llava.generation import generation_inputs
from llava.model.multimodal.image_pipeline import ImagePipeline
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.threads_engine import ThreadsEngine
from llava.serve.protocol.schemas import GenerationBody
from llava.serve.worker import request_images
from llava.serve.worker.app import create_app
from llava.serve.worker.known_pixels import KnownPixels, ReadImage, key_of
from llava.serve.worker.request_images import is_large, read_images
from llava.serve.worker.request_limits import RequestLimits

pytestmark = pytest.mark.anyio
PROMPT = "<image>\nw5"


def text_of(image, kind="PNG", **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def noise(width, height, mode="RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def body_of(*texts) -> GenerationBody:
    return GenerationBody(prompt="<image>\n" * len(texts) + "w5", images=list(texts))


def held(orientation) -> str:
    """An image of 24 by 16 pixels as a phone stores it, held in this EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return text_of(noise(24, 16), exif=exif)


@pytest.mark.parametrize("size", [(40, 30), (3000, 4), (1, 900), (1500, 1500)], ids=str)
def test_read_images_are_the_pixels_of_answering(loaded, size):
    image = noise(*size)
    found = read_images(body_of(text_of(image)), loaded, RequestLimits())
    expected = generation_inputs(loaded.model, loaded.tokenizer, loaded.image_processor, PROMPT, [image], {})
    assert found.sizes == (size,) and found.pixels.dtype == loaded.model.dtype
    assert found.pixels.equal(expected["images"])
    kept = generation_inputs(loaded.model, loaded.tokenizer, loaded.image_processor, PROMPT, found, {})
    assert kept["images"].equal(expected["images"]) and kept["image_sizes"] == expected["image_sizes"] == [size]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_images_turns_by_exif_and_notes_it(loaded, orientation):
    text = held(orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(text))))
    found = read_images(body_of(held(1), text), loaded, RequestLimits())
    assert found.sizes[1] == upright.size == ((16, 24) if orientation > 4 else (24, 16))
    assert found.pixels[1].equal(read_images(body_of(text_of(upright)), loaded, RequestLimits()).pixels[0])
    assert len(found.notes) == (orientation != 1)
    assert not found.notes or ("image 2" in found.notes[0] and str(orientation) in found.notes[0])
    stored = read_images(body_of(text), loaded, RequestLimits(ignore_exif_orientation=True))
    assert stored.sizes == ((24, 16),) and stored.notes == ()


def test_read_images_stops_where_nobody_waits(loaded):
    asked = iter([False, True])
    with pytest.raises(TimeoutError):
        read_images(body_of(*[text_of(noise(8, 8))] * 5), loaded, RequestLimits(), lambda: next(asked))


@pytest.mark.parametrize(
    ("texts", "large"),
    [
        ([], False),
        ([text_of(noise(96, 96))] * 8, False),
        ([text_of(Image.new("L", (1001, 1000)))], True),
        ([text_of(Image.new("L", (600, 600)))] * 3, True),
        (["A" * 1_100_000], True),
        (["no image"], False),
        (["no image", text_of(Image.new("L", (1001, 1000)))], True),
        ([text_of(Image.new("1", (1, 20_000)))], False),
    ],
    ids=["none", "small", "one large", "many", "bytes", "unreadable", "unreadable and large", "thin"],
)
def test_is_large_goes_by_the_headers(texts, large):
    assert is_large(body_of(*texts), RequestLimits(), KnownPixels()) is large


async def test_reply_says_that_an_image_was_turned(make_service, client_of):
    async with client_of(make_service()) as client:
        last = (await client.ask(prompt=PROMPT, images=[held(6)], max_new_tokens=2))[-1]
        assert "EXIF orientation 6" in last["image_notes"][0]
        assert "image_notes" not in (await client.ask(prompt=PROMPT, images=[held(1)], max_new_tokens=2))[-1]


async def test_waiting_request_holds_neither_its_body_nor_its_image(make_service, slow_engine, connect):
    """A photograph of 3 MB on the wire, 12 MB decoded, waits as some kilobytes."""
    service = make_service(make_engine=slow_engine.make)
    app = create_app(service)
    async with app.router.lifespan_context(app):
        text = text_of(noise(1024, 1024))
        tracemalloc.start()
        try:
            connection = connect(app, prompt=PROMPT, images=[text], max_new_tokens=1)
            while not slow_engine.requests:
                await asyncio.sleep(0.01)
            request = slow_engine.requests[0]
            assert request.generation.images.sizes == ((1024, 1024),)
            del connection._body
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 1_000_000 < len(text)
        finally:
            tracemalloc.stop()
            slow_engine.tokens.release(5)
        await connection.task


@pytest.mark.parametrize("engine", [ThreadsEngine, BatchEngine])
async def test_engines_make_no_pixels(make_service, client_of, monkeypatch, engine):
    """Thin and deep images and ordinary ones, small and large: all become pixels in the pool's threads."""
    threads, pixels = [], ImagePipeline.pixels

    def recorded(self, image, num_images=1):
        threads.append(threading.current_thread().name)
        return pixels(self, image, num_images)

    monkeypatch.setattr(ImagePipeline, "pixels", recorded)
    images = [
        noise(40, 30),
        Image.new("RGB", (20_000, 1)),
        Image.new("I;16", (1100, 1000)),
        Image.new("L", (1, 16_000)),
    ]
    async with client_of(make_service(make_engine=engine, slots=2)) as client:
        asked = [client.ask(prompt=PROMPT, images=[text_of(image)], max_new_tokens=2) for image in images]
        answers = await asyncio.gather(*asked)
    assert all(parts[-1]["finish_reason"] == "length" for parts in answers)
    assert sorted(name.partition("_")[0] for name in threads) == ["large-images"] + ["small-images"] * 3


async def test_images_that_are_not_read_in_time_fail_with_a_message(make_service, client_of, monkeypatch):
    waits = threading.Event()
    monkeypatch.setattr(ImagePipeline, "pixels", lambda *_: waits.wait(60))
    service = make_service(limits=RequestLimits(image_timeout_s=0.1))
    async with client_of(service) as client:
        asking = client.post("/worker_generate_stream", json={"prompt": PROMPT, "images": [text_of(noise(8, 8))]})
        task = asyncio.create_task(asking)
        while not service.images.pending:
            await asyncio.sleep(0)
        assert service.status().queue_length == 1, "the controller counts it"
        reply = await task
        assert reply.status_code == 503 and reply.json()["reason"] == "timeout" and "0.1 s" in reply.json()["text"]
        assert (await client.ask(max_new_tokens=1))[-1]["finish_reason"] == "length", "text goes on"
        assert service.status().queue_length == 0
        waits.set()


async def test_image_of_an_earlier_turn_is_not_read_again(make_service, client_of, monkeypatch):
    first, second = text_of(noise(24, 16)), held(6)
    service = make_service()
    async with client_of(service) as client:
        await client.ask(prompt=PROMPT, images=[second], max_new_tokens=2)
        with monkeypatch.context() as patch:
            patch.setattr(request_images, "open_image", None)  # which nothing may call now
            again = (await client.ask(prompt=PROMPT, images=[second], max_new_tokens=2))[-1]
        assert again["image_notes"][0].startswith("image 1 was turned")
        both = (await client.ask(prompt=f"{PROMPT} {PROMPT}", images=[first, second], max_new_tokens=2))[-1]
        assert both["image_notes"][0].startswith("image 2 was turned"), "its number is that of the prompt"


def test_known_pixels_hold_what_was_used_last_within_their_limit():
    image = ReadImage(torch.zeros(3, 2, 2), (2, 2))
    known = KnownPixels(max_bytes=2 * image.pixels.nbytes)
    for text in ("a", "b"):
        known.add(key_of(text, 1), image)
    assert known.find(key_of("a", 1)) is image
    assert known.find(key_of("a", 2)) is None, "of several images other pixels are made"
    known.add(key_of("c", 1), image)
    assert [known.find(key_of(text, 1)) is image for text in "abc"] == [True, False, True]
    known.add(key_of("large", 1), ReadImage(torch.zeros(3, 9, 9), (9, 9)))
    assert known.find(key_of("large", 1)) is None and known.num_bytes == known.max_bytes


def test_image_that_is_known_does_not_take_long():
    text = text_of(Image.new("L", (1001, 1000)))
    known = KnownPixels()
    assert is_large(body_of(text), RequestLimits(), known)
    known.add(key_of(text, 1), ReadImage(torch.zeros(3, 2, 2), (1001, 1000)))
    assert not is_large(body_of(text), RequestLimits(), known)


async def test_text_of_half_a_character_is_no_image(make_service, client_of):
    async with client_of(make_service()) as client:
        body = '{"prompt": "<image>", "images": ["\\ud800"]}'
        reply = await client.post("/worker_generate_stream", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400, reply.text
