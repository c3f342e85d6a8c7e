"""Reads images from files, addresses and requests within limits of bytes, pixels and decoding time.

Every program reads images here: the limits are checked before a pixel is decoded, and the errors name them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3
from PIL import Image, UnidentifiedImageError

from llava.errors import ImageError
from llava.files.image_modes import DAMAGED, EIGHT_BIT, UPRIGHT, orientation_of, to_rgb, turned
from llava.files.image_structure import check_cost, check_structure

MIB = 1 << 20
MAX_PIXELS = 50_000_000
DOWNLOAD_SECONDS = 30
MAX_SHOWN = 200  # characters of a name in a message
REQUEST_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Pillow's names of the formats that servers read."""
# Formats that Pillow decodes itself, in C: others take long, or start programs such as Ghostscript.
FILE_FORMATS = (*REQUEST_FORMATS, "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "TGA", "PCX", "ICO", "PSD", "SGI", "HEIF")


@dataclass(frozen=True)
class ImageLimits:
    """What is read of an image.

    max_bytes: of its file. max_pixels: width times height. formats: Pillow's names. still: refuse animations, of which
    the first frame is read otherwise, and base64 with characters that do not belong there.
    """

    max_bytes: int = 512 * MIB
    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = FILE_FORMATS
    still: bool = False


@dataclass(frozen=True)
class OpenedImage:
    """An RGB image. orientation: EXIF's of its file, 1 to 8. was_turned: whether it was turned by it."""

    image: Image.Image
    orientation: int = UPRIGHT
    was_turned: bool = False

    def note(self, name: str) -> str | None:
        """Return what is to be said about an image that was turned, or that a viewer would turn; None for others."""
        if self.orientation == UPRIGHT:
            return None
        if self.was_turned:
            return f"{name} was turned upright, as its EXIF orientation {self.orientation} says"
        return f"{name} is read as it is stored, although its EXIF orientation is {self.orientation}"


ANY_FILE = ImageLimits()


def open_image(
    source: str | Path | bytes | Image.Image,
    limits: ImageLimits = ANY_FILE,
    *,
    turn_by_exif: bool = False,
    name: str | None = None,
) -> OpenedImage:
    """Open an image from a path, an http(s) address, a file's bytes, or Pillow's image.

    turn_by_exif: show it as its camera was held; upstream reads what is stored. name: what messages call it. Raises
    ImageError where it is missing, cut short, not an image, or beyond the limits.
    """
    if isinstance(source, Image.Image):
        name = name or "the given image"
        check_cost(source, 1, limits.max_pixels, name)
        decoded = _decoded(source, name)
    else:
        name = name or ("the image" if isinstance(source, bytes) else repr(str(source)))
        data = source if isinstance(source, bytes) else _read(str(source), limits)
        decoded = _decoded(_inspected(data, name, limits)[0], name)
    orientation = orientation_of(decoded)
    image = to_rgb(decoded, name)
    turn = turn_by_exif and orientation != UPRIGHT
    return OpenedImage(turned(image, orientation) if turn else image, orientation, turn)


def load_image(
    source: str | Path | bytes | Image.Image, max_pixels: int = MAX_PIXELS, *, turn_by_exif: bool = False
) -> Image.Image:
    """Load an RGB image as ``open_image`` does."""
    return open_image(source, replace(ANY_FILE, max_pixels=max_pixels), turn_by_exif=turn_by_exif).image


def load_image_from_base64(image: str | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open the image in a base64 text, as requests and MMBench's tables carry it; it keeps its mode.

    Raises ImageError where there is no image, or a larger one, before any pixel is decoded.
    """
    limits = replace(ANY_FILE, max_pixels=max_pixels)
    name = "the request's image"
    return _decoded(_inspected(decode_base64(image, limits), name, limits)[0], name)


def decode_base64(text: str | bytes, limits: ImageLimits = ANY_FILE, *, name: str = "the image of a request") -> bytes:
    """Return the file that a base64 text holds. name: what messages call it.

    Raises ImageError where it is not base64, or too large.
    """
    if len(text) * 3 // 4 > limits.max_bytes + 2:
        raise ImageError(f"{name} has more than {limits.max_bytes:,} bytes; make it smaller")
    try:
        packed = text if isinstance(text, bytes) else text.encode("ascii")
        return base64.b64decode(b"".join(packed.split()), validate=limits.still)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{name} is not base64: {error}") from error


def check_image(path: str | Path, limits: ImageLimits = ANY_FILE) -> None:
    """Raise the ImageError that ``open_image`` would, if any, without decoding files that are plainly complete."""
    with contextlib.suppress(ImageError, *DAMAGED, Image.DecompressionBombError), open(path, "rb") as file:
        image = _header(file, limits)
        if image.mode in EIGHT_BIT and _plainly_complete(image, file, limits):
            return
    open_image(path, limits)


def _plainly_complete(image: Image.Image, file: BinaryIO, limits: ImageLimits) -> bool:
    """Return whether a PNG's checksums are right, or a JPEG has its end; False for other formats, and costly files."""
    if image.format not in ("PNG", "JPEG"):
        return False
    scans = 1
    if image.format == "PNG" or image.info.get("progressive"):  # a plain JPEG of many scans is no fault of encoders
        file.seek(0)
        scans = check_structure(file.read(limits.max_bytes), "it")
    check_cost(image, scans, limits.max_pixels, "it")
    if image.format == "PNG":
        image.verify()  # raises where it is not
        return True
    file.seek(-2, io.SEEK_END)
    return file.read() == b"\xff\xd9"


def _read(name: str, limits: ImageLimits) -> bytes:
    """Read the file at a path or an http(s) address. Raises ImageError."""
    if name.startswith(("http://", "https://")):
        return _download(name, limits)
    try:
        with open(name, "rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError(f"there is no image at {name!r}; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name!r} is a folder; expected an image file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"cannot open the image {name[:MAX_SHOWN]!r}: {reason}") from error
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name!r} has more than {limits.max_bytes:,} bytes; make it smaller")
    return data


def _download(address: str, limits: ImageLimits) -> bytes:
    data, end = bytearray(), time.monotonic() + DOWNLOAD_SECONDS
    try:
        with requests.get(address, timeout=DOWNLOAD_SECONDS, stream=True) as response:
            response.raise_for_status()
            for piece in response.iter_content(MIB):
                data += piece
                if len(data) > limits.max_bytes:
                    raise ImageError(f"{address!r} has more than {limits.max_bytes:,} bytes; give a smaller image")
                if time.monotonic() > end:
                    raise ImageError(f"{address!r} did not arrive within {DOWNLOAD_SECONDS} s")
    except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:  # of odd host names, too
        raise ImageError(f"cannot fetch the image {address[:MAX_SHOWN]!r}: {error}") from error
    return bytes(data)


def _header(file: BinaryIO, limits: ImageLimits) -> Image.Image:
    """Open an image: its format and size are known, its pixels not yet decoded."""
    with warnings.catch_warnings():
        # Pillow's own guard; the one here names its limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()
        available = [name for name in limits.formats if name in Image.OPEN]  # Pillow may be built without some
        return Image.open(file, formats=available)


def stated_cost(data: bytes, limits: ImageLimits) -> int:
    """Return the pixels that decoding a file goes over, its scans counted, by its header. Raises ImageError."""
    image, scans = _inspected(data, "the image", limits)
    return image.width * image.height * scans


def _inspected(data: bytes, name: str, limits: ImageLimits) -> tuple[Image.Image, int]:
    """Open an image that is within the limits, not yet decoded; return it and its scans. Raises ImageError."""
    scans = check_structure(data, name)
    try:
        image = _header(io.BytesIO(data), limits)
        # A phone's MPO holds the same image in several sizes.
        animated = limits.still and image.format != "MPO" and getattr(image, "is_animated", False)
    except UnidentifiedImageError as error:
        expected = ", ".join(limits.formats)
        raise ImageError(f"{name} is not an image that can be read; expected one of {expected}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large ({error}); at most {limits.max_pixels:,} pixels are read") from error
    except DAMAGED as error:
        raise ImageError(f"{name} is cut short or damaged: {error}") from error
    if animated:
        raise ImageError(f"{name} is an animation; expected a still image")
    check_cost(image, scans, limits.max_pixels, name)
    return image, scans


def _decoded(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except DAMAGED as error:
        raise ImageError(f"{name} is cut short or damaged: {error}") from error
    return image
