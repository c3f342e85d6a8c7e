"""Reads images from files, addresses and requests, and refuses those that cannot be used."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import IO, BinaryIO

import requests
from PIL import Image, UnidentifiedImageError

from llava.errors import ImageError

MAX_PIXELS = 50_000_000
DOWNLOAD_SECONDS = 30
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow's formats raise on bad files


def load_image(source: str | Path | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load an RGB image from a path, an http(s) address, or an open image; EXIF does not rotate it, as upstream.

    Raises ImageError where it is missing, cut short, not an image, or of more than ``max_pixels``; the size is taken
    from the file's header, before any pixel is decoded.
    """
    if isinstance(source, Image.Image):
        return _decoded(source, "the given image", max_pixels)
    name = str(source)
    if name.startswith(("http://", "https://")):
        return _opened(io.BytesIO(_download(name)), name, max_pixels)
    if Path(name).is_dir():
        raise ImageError(f"{name!r} is a folder; expected an image file")
    try:
        with open(name, "rb") as file:
            return _opened(file, name, max_pixels)
    except FileNotFoundError as error:
        raise ImageError(f"there is no image at {name!r}; check the path") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ImageError(f"cannot open the image {name!r}: {error.strerror}") from error


def check_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the ImageError that ``load_image`` would, if any, without decoding files that are plainly complete."""
    with contextlib.suppress(*DAMAGED, Image.DecompressionBombError), open(path, "rb") as file:
        image = _header(file)
        if image.width * image.height <= max_pixels and _plainly_complete(image, file):
            return
    load_image(path, max_pixels)


def _plainly_complete(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether a PNG's checksums are right, or a JPEG has its end; False for other formats."""
    if image.format == "PNG":
        image.verify()  # raises where it is not
        return True
    if image.format != "JPEG":
        return False
    file.seek(-2, io.SEEK_END)
    return file.read() == b"\xff\xd9"


def load_image_from_base64(
    image: str | bytes,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int | None = None,
    formats: tuple[str, ...] | None = None,
    strict: bool = False,
) -> Image.Image:
    """Open the image in a base64 text, as requests carry it; it keeps its mode.

    max_bytes: of its file. formats: Pillow's names of those that are read. strict: refuse animations, and characters
    that are not base64. Raises ImageError where there is no image, or one beyond these limits,
    before any pixel is decoded.
    """
    if max_bytes is not None and len(image) * 3 // 4 > max_bytes + 2:
        raise ImageError(f"the image of a request has more than {max_bytes:,} bytes; make it smaller")
    try:
        text = image if isinstance(image, bytes) else image.encode("ascii")
        data = base64.b64decode(b"".join(text.split()), validate=strict)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image of a request is not base64: {error}") from error
    return _opened(io.BytesIO(data), "the request's image", max_pixels, None, formats, strict)


def _download(address: str) -> bytes:
    try:
        response = requests.get(address, timeout=DOWNLOAD_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        raise ImageError(f"cannot fetch the image {address!r}: {error}") from error
    return response.content


def _header(file: IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Open an image: its format and size are known, its pixels not yet decoded."""
    with warnings.catch_warnings():
        # Pillow's own guard; the one here names its limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=formats)


def _opened(
    file: IO[bytes],
    name: str,
    max_pixels: int,
    mode: str | None = "RGB",
    formats: tuple[str, ...] | None = None,
    strict: bool = False,
) -> Image.Image:
    expected = "PNG, JPEG or the like" if formats is None else f"one of {', '.join(formats)}"
    try:
        image = _header(file, formats)
        # A phone's MPO holds the same image in several sizes.
        animated = strict and image.format != "MPO" and getattr(image, "is_animated", False)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name!r} is not an image that can be read; expected {expected}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name!r} is too large ({error}); at most {max_pixels:,} pixels are read") from error
    except DAMAGED as error:
        raise ImageError(f"{name!r} is cut short or damaged: {error}") from error
    if animated:
        raise ImageError(f"{name!r} is an animation; expected a still image")
    return _decoded(image, repr(name), max_pixels, mode)


def _decoded(image: Image.Image, name: str, max_pixels: int, mode: str | None = "RGB") -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are read. "
            "Make it smaller"
        )
    try:
        image.load()
        return image if mode is None else image.convert(mode)
    except DAMAGED as error:
        raise ImageError(f"{name} is cut short or damaged: {error}") from error
