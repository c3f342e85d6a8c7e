"""Turns images of any mode into RGB with 8 bits a channel, and upright as their EXIF orientation says."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from PIL import Image

from llava.errors import ImageError

# What Pillow's formats raise on bad files, AVIF RuntimeError.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, struct.error
)  # fmt: skip
EIGHT_BIT = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"))
SIXTEEN_BIT = frozenset(("I;16", "I;16L", "I;16B", "I;16N"))
SIXTEEN_BIT_FILES = frozenset(("PNG", "PPM"))  # formats whose 32-bit mode "I" holds 16 bits
ORIENTATION = 0x0112  # EXIF's tag
BITS, PHOTOMETRIC = 258, 262  # TIFF's tags: of a sample; 0 says that 0 is white
UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TO_8_BITS = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Convert a decoded image to RGB; modes of more than 8 bits are scaled, where Pillow would cut their values off.

    Transparency is dropped. 16 bits are scaled by 65535, 12 by 4095, floats by 1. Raises ImageError, which begins with
    ``name``, where an image's values have no known range, and for modes that have no colour of RGB.
    """
    if image.mode == "RGB":
        return image  # not a copy, which Pillow's conversion makes: photographs are large
    if image.mode in EIGHT_BIT:
        return image.convert("RGB")
    if image.mode == "La":
        return image.convert("LA").convert("RGB")
    if image.mode in SIXTEEN_BIT:
        return _grey(_TO_8_BITS[_from_black(_sixteen_bits(image), image, 65535)])
    if image.mode == "I":
        return _grey(_int32_to_8_bits(image, name))
    if image.mode == "F":
        return _grey(_float_to_8_bits(image, name))
    raise ImageError(f"{name} has the mode {image.mode!r}, which cannot be shown in RGB; save it as an 8-bit PNG")


def _grey(values: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def _tiff_tag(image: Image.Image, tag: int) -> object:
    return getattr(image, "tag_v2", {}).get(tag) if image.format == "TIFF" else None


def _sixteen_bits(image: Image.Image) -> np.ndarray[Any, Any]:
    """Return values up to 65535; Pillow leaves the 12 bits of a TIFF, up to 4095, as they are."""
    values = np.asarray(image)
    return values << 4 | values >> 8 if _tiff_tag(image, BITS) == (12,) else values


def _from_black(values: np.ndarray[Any, Any], image: Image.Image, white: int) -> np.ndarray[Any, Any]:
    """Return values that count from black; Pillow leaves those of a TIFF that count from white as they are."""
    return white - values if _tiff_tag(image, PHOTOMETRIC) == 0 else values


def _int32_to_8_bits(image: Image.Image, name: str) -> np.ndarray[Any, Any]:
    """Scale by what the format states; else take values up to 255 as 8 bits, and up to 65535 as 16."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name} holds integers from {low} to {high}; expected 0 to 255, or 0 to 65535. Save it with 8 bits a "
            "channel"
        )
    if high <= 255 and image.format not in SIXTEEN_BIT_FILES:
        return values.astype(np.uint8)
    scaled: np.ndarray[Any, Any] = _TO_8_BITS[values]
    return scaled


def _float_to_8_bits(image: Image.Image, name: str) -> np.ndarray[Any, Any]:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is refused, too
        raise ImageError(
            f"{name} holds floating-point values from {low:g} to {high:g}; expected 0 (black) to 1 (white). Scale "
            "them, or save it with 8 bits a channel"
        )
    scaled: np.ndarray[Any, Any] = np.rint(_from_black(values, image, 1) * 255).astype(np.uint8)
    return scaled


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that a decoded image's EXIF or XMP states, 1 to 8; ``UPRIGHT`` where it states none.

    A TIFF has none: Pillow turns it as it decodes it. EXIF that is damaged states none, as viewers take it.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    except DAMAGED:
        return UPRIGHT
    return orientation if orientation in TURNS else UPRIGHT


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image as it is to be seen, where ``orientation`` says how the stored one is held."""
    return image if orientation == UPRIGHT else image.transpose(TURNS[orientation])
