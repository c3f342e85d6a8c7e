"""Reads the images of a request into pixels at the model's size."""

from __future__ import annotations

from collections.abc import Callable

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.files.images import REQUEST_FORMATS, ImageLimits, decode_base64, open_image, stated_cost
from llava.model.loaded_model import LoadedModel
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages
from llava.serve.protocol.schemas import GenerationBody
from llava.serve.worker.known_pixels import NAME, KnownPixels, ReadImage, key_of
from llava.serve.worker.request_limits import RequestLimits

# What takes longer than some hundredths of a second to read.
LARGE_CHARACTERS = 1 << 20  # of base64
LARGE_PIXELS = 1_000_000


def read_images(
    body: GenerationBody,
    loaded: LoadedModel,
    limits: RequestLimits,
    is_late: Callable[[], bool] = lambda: False,
    known: KnownPixels | None = None,
) -> PreparedImages:
    """Turn the images of a request, one for each image tag of its prompt, into pixels in the model's dtype.

    Only one image is held at its own size at a time. is_late: as ``parse_request`` has it; known: images that were read
    before, to which these are added. Raises ImageError where their number does not fit, before any is decoded, and for
    images that cannot be read.
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
    pipeline = ImagePipeline(loaded.image_processor, loaded.model.config)
    known = KnownPixels() if known is None else known
    read = []
    for number, text in enumerate(given, start=1):
        if is_late():
            raise TimeoutError
        key = key_of(text, len(given))
        image = known.find(key)
        if image is None:
            image = _read(text, number, pipeline, len(given), limits, loaded.model.dtype)
            known.add(key, image)
        read.append(image)
    notes = [image.note.replace(NAME, f"image {number}") for number, image in enumerate(read, start=1) if image.note]
    return PreparedImages.of([image.pixels for image in read], [image.size for image in read], notes)


def count_crops(images: PreparedImages) -> int:
    """Return how many images the vision tower sees, crops counted."""
    if images.pixels is None:
        return 0
    parts = images.pixels if isinstance(images.pixels, list) else [images.pixels]
    return sum(part.shape[:-3].numel() for part in parts)  # (..., 3, S, S)


def is_large(body: GenerationBody, limits: RequestLimits, known: KnownPixels) -> bool:
    """Return whether a request's images take long to read, by their headers. One that cannot be read counts 0."""
    texts = body.images or []
    if sum(map(len, texts)) > LARGE_CHARACTERS:
        return True
    texts = [text for text in texts if known.find(key_of(text, len(texts))) is None]
    return sum(_stated_cost(text, image_limits(limits)) for text in texts) > LARGE_PIXELS


def _stated_cost(text: str, limits: ImageLimits) -> int:
    """Return what an image costs to read; 0 for one that cannot be read."""
    try:
        return stated_cost(decode_base64(text, limits), limits)
    except ImageError:
        return 0


def image_limits(limits: RequestLimits) -> ImageLimits:
    """Return what is read of an image in a request."""
    return ImageLimits(limits.max_image_bytes, limits.max_image_pixels, REQUEST_FORMATS, still=True)


def _read(
    text: str, number: int, pipeline: ImagePipeline, num_images: int, limits: RequestLimits, dtype: torch.dtype
) -> ReadImage:
    """Open one image and turn it into pixels."""
    try:
        data = decode_base64(text, image_limits(limits))
        turn = not limits.ignore_exif_orientation
        opened = open_image(data, image_limits(limits), turn_by_exif=turn)
    except ImageError as error:
        raise ImageError(f"image {number}: {error}") from error
    note = opened.note(NAME) if opened.was_turned else None
    return ReadImage(pipeline.pixels(opened.image, num_images).to(dtype), opened.image.size, note)
