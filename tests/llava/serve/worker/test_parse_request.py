"""Requests that are checked: counted prompt positions against those that enter the decoder, image tags."""

import base64
import io

import pytest
from PIL import Image

from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.loaded_model import open_model
from llava.serve.engine.policy import ServingPolicy
from llava.serve.protocol.schemas import GenerationBody
from llava.serve.worker.parse_request import count_tokens, parse_request
from llava.serve.worker.request_limits import RequestLimits

PROMPT = "w5 <image>\nw6 <image> w7"
SIZES = ((16, 16), (40, 10), (9, 50))
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]}


def positions(loaded, images) -> int:
    """Length of the sequence that the decoder reads."""
    ids = tokenizer_image_token(PROMPT, loaded.tokenizer, return_tensors="pt")[None]
    pixels = process_images(images, loaded.image_processor, loaded.model.config)
    sizes = [image.size for image in images]
    merged = loaded.model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels, sizes)
    return merged[4].shape[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        ANYRES,
        {**ANYRES, "mm_patch_merge_type": "spatial"},
        {**ANYRES, "mm_patch_merge_type": "spatial_unpad"},
        {**ANYRES, "mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres_max_1"},
    ],
    ids=["pad", "anyres", "spatial", "unpad", "onevision"],
)
def test_count_tokens_is_the_length_of_the_sequence(make_checkpoint, changes) -> None:
    loaded = open_model({"model_path": str(make_checkpoint(**changes)), "model_name": "tiny", "device": "cpu"})
    for size in SIZES:
        images = [Image.new("RGB", size), Image.new("RGB", (16, 16))]
        assert count_tokens(PROMPT, [image.size for image in images], loaded) == positions(loaded, images)


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, []),
        ({}, SIZES),
        (ANYRES, SIZES[:1]),
        (ANYRES, SIZES),
        ({**ANYRES, "mm_patch_merge_type": "spatial"}, SIZES),
    ],
)
def test_parse_request_counts_the_crops_that_the_vision_tower_sees(make_checkpoint, changes, sizes) -> None:
    loaded = open_model({"model_path": str(make_checkpoint(**changes)), "model_name": "tiny", "device": "cpu"})
    files = [io.BytesIO() for _ in sizes]
    for file, size in zip(files, sizes, strict=True):
        Image.new("RGB", size).save(file, "PNG")
    texts = [base64.b64encode(file.getvalue()).decode() for file in files]
    promised = []

    class Noting(ServingPolicy):
        """Notes what a promise is made by."""

        def promise(self, fields, prompt_tokens, max_new_tokens) -> None:
            promised.append(fields["num_crops"])

    body = GenerationBody(prompt="w5 " + "<image>" * len(sizes), images=texts)
    question = parse_request(body, loaded, RequestLimits(), Noting())
    seen = []
    if sizes:
        hook = loaded.model.get_vision_tower().register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        ids = tokenizer_image_token(question.prompt, loaded.tokenizer, return_tensors="pt")[None]
        loaded.model.embed(ids, images=question.images.pixels, image_sizes=question.images.sizes)
        hook.remove()
    assert promised == [question.fields["num_crops"]] == [sum(seen)]
    assert (sum(seen) > len(sizes)) == bool(changes)


@pytest.mark.parametrize("marks", [False, True])
def test_parse_request_adds_the_image_marks_that_the_model_knows(make_checkpoint, image_text, marks) -> None:
    folder = make_checkpoint(mm_use_im_start_end=marks)
    loaded = open_model({"model_path": str(folder), "model_name": "tiny", "device": "cpu"})
    body = GenerationBody(prompt="w5 <image>\nw6", images=[image_text])
    question = parse_request(body, loaded, RequestLimits(), ServingPolicy())
    assert question.prompt == ("w5 <im_start><image><im_end>\nw6" if marks else body.prompt)
    assert question.echo == body.prompt, "clients cut off what they sent"
    ids = tokenizer_image_token(question.prompt, loaded.tokenizer)
    assert ids.count(loaded.tokenizer.convert_tokens_to_ids("<im_start>")) == (1 if marks else 0)
