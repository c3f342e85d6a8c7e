"""Reads the images of a request into pixels at the model's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.files.images import REQUEST_FORMATS, ImageLimits, decode_base64, open_image, stated_cost
from llava.model.loaded_model import LoadedModel
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages
from llava.serve.protocol.schemas import GenerationBody
from llava.serve.worker.request_limits import RequestLimits

# What takes longer than some hundredths of a second to read.
LARGE_CHARACTERS = 1 << 20  # of base64
LARGE_PIXELS = 1_000_000


def read_images(
    body: GenerationBody, loaded: LoadedModel, limits: RequestLimits, is_late: Callable[[], bool] = lambda: False
) -> PreparedImages:
    """Turn the images of a request, one for each image tag of its prompt, into pixels in the model's dtype.

    Only one image is held at its own size at a time. is_late: as ``parse_request`` has it. Raises ImageError where
    their number does not fit, before any is decoded, and for images that cannot be read.
    """
    given = body.images or []
    tags = body.prompt.count(DEFAULT_IMAGE_TOKEN)
    if len(given) != tags:
        raise ImageError(
            f"{len(given)} image(s) given, but {tags} {DEFAULT_IMAGE_TOKEN} tag(s) in the prompt; "
            "there must be one for each"
        )
    if len(given) > limits.max_images:
        raise ImageError(f"{len(given)} images given; the maximum is {limits.max_images}")
    if given and not loaded.takes_images:
        raise ImageError(f"model {loaded.name!r} has no vision tower; ask it without images")
    notes: list[str] = []

    def opened() -> Iterator[Image.Image]:
        for number, text in enumerate(given, start=1):
            if is_late():
                raise TimeoutError
            yield _open(text, number, limits, notes)

    prepared = ImagePipeline(loaded.image_processor, loaded.model.config).prepare(opened(), len(given))
    return replace(prepared, notes=tuple(notes)).to(dtype=loaded.model.dtype)


def is_large(body: GenerationBody, limits: RequestLimits) -> bool:
    """Return whether a request's images take long to read, by their headers. One that cannot be read does not."""
    texts = body.images or []
    if sum(map(len, texts)) > LARGE_CHARACTERS:
        return True
    try:
        costs = [stated_cost(decode_base64(text, image_limits(limits)), image_limits(limits)) for text in texts]
    except ImageError:
        return False
    return sum(costs) > LARGE_PIXELS


def image_limits(limits: RequestLimits) -> ImageLimits:
    """Return what is read of an image in a request."""
    return ImageLimits(limits.max_image_bytes, limits.max_image_pixels, REQUEST_FORMATS, still=True)


def _open(text: str, number: int, limits: RequestLimits, notes: list[str]) -> Image.Image:
    """Open one image; add to ``notes`` what the reply is to say about it."""
    try:
        data = decode_base64(text, image_limits(limits))
        turn = not limits.ignore_exif_orientation
        opened = open_image(data, image_limits(limits), turn_by_exif=turn)
    except ImageError as error:
        raise ImageError(f"image {number}: {error}") from error
    if opened.was_turned and (note := opened.note(f"image {number}")):
        notes.append(note)
    return opened.image
