"""Batches of prompts with images: each is answered as if it were alone, however many images the others have."""

import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import ImageError
from llava.eval.answering.batched_generation import Answerer
from llava.generation import SamplingParams
from llava.model.loaded_model import open_model
from tests.fixtures.hub_llavas import write_hub_llava

TAG = IMAGE_TOKEN_INDEX
PROMPTS = [[1, TAG, 7, 5], [1, 5, 9], [1, TAG, 8, TAG, 7, 5], [1, TAG, 5, 33, 17]]
SIZES = [(64, 64), (30, 20), (90, 20), (10, 90)]  # width, height


@pytest.fixture(scope="module", params=["onevision-4", "next-qwen2"])
def answerer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    write_hub_llava(request.param, folder)
    loaded = open_model({"model_path": str(folder), "device": "cpu"})
    loaded.model.generation_config.eos_token_id = None
    return Answerer(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template)


@pytest.fixture(scope="module")
def images():
    return [Image.effect_noise(size, 90).convert("RGB") for size in SIZES]


def logits(answerer, prompts, images):
    """The first token's logits of each prompt (B, V)."""
    sizes = [image.size for image in images] or None
    keywords = {"output_logits": True}
    pixels = answerer.pixels(images, prompts)
    answers = answerer.answer(prompts, pixels, sizes, SamplingParams(max_new_tokens=1), keywords)
    return answers.output.logits[0]


def test_a_batch_is_answered_as_its_prompts_alone(answerer, images):
    batch = logits(answerer, PROMPTS, images)
    waiting = list(images)
    for row, prompt in enumerate(PROMPTS):
        own = [waiting.pop(0) for _ in range(prompt.count(TAG))]
        torch.testing.assert_close(batch[row], logits(answerer, [prompt], own)[0], atol=1e-5, rtol=0)


def test_pixels_of_more_images_than_tags_raises(answerer, images):
    with pytest.raises(ImageError, match=r"1 image tag\(s\) in the prompts, but 4 image\(s\) given"):
        answerer.pixels(images, [PROMPTS[0]])
