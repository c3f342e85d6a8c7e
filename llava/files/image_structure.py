"""Refuses image files whose decoding takes far longer than their pixels do: scans, comments, frames without end."""

from __future__ import annotations

import re

from PIL import Image

from llava.errors import ImageError

MAX_SCANS = 100  # of a JPEG; encoders write about 10
MAX_SCANNED_PIXELS = 1_000_000_000  # pixels times scans: about a second of decoding
MAX_SEGMENTS = 10_000  # of a JPEG, and chunks of a PNG, which may have one more for each kibibyte
MAX_PACKED_TEXTS = 32  # of a PNG; some hundred bytes of each become a megabyte
MAX_FILL_BYTES = 1 << 16  # in a row in a JPEG; Pillow reads them one by one
MAX_EXTENSION_BYTES = 1 << 20  # of a GIF's comments and the like; Pillow's time grows with their square
MIN_BLOCK_BYTES = 64  # mean size of a GIF's blocks; encoders fill them to 255
RUN_LENGTH_PIXELS = 8  # a run-length coded BMP, which Pillow decodes in Python, may have this part of the pixels
MAX_SIDE = 65_535  # pixels: a JPEG's maximum; resizing takes memory for each of a side
SOS, EOI = b"\xda", b"\xd9"
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # those that are followed by a length, and SOI and EOI


def check_structure(data: bytes, name: str) -> int:
    """Read how a file is built, by its first bytes, without decoding it; return the number of a JPEG's scans, else 1.

    Raises ImageError, which begins with ``name``, for a JPEG of too many scans or segments, a PNG of too many chunks
    and a GIF of too many comments or blocks. A damaged file passes: the decoder finds that.
    """
    if data[:3] == b"\xff\xd8\xff":
        scans = count_scans(data, name)
        if scans > MAX_SCANS:
            raise ImageError(f"{name} is a JPEG of {scans:,} scans; at most {MAX_SCANS} are read. Save it anew")
        return scans
    if data[:4] == b"\x89PNG":
        _walk_png(data, name)
    if data[:4] == b"GIF8":
        _walk_gif(data, name)
    return 1


def check_cost(image: Image.Image, scans: int, max_pixels: int, name: str) -> None:
    """Raise ImageError where an opened image, not yet decoded, has too many pixels for the way it is coded."""
    width, height = image.size
    pixels = width * height
    if pixels == 0:
        raise ImageError(f"{name} has {width} x {height} pixels; expected 1 or more along each side")
    if pixels > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {pixels:,} pixels; at most {max_pixels:,} are read. Make it smaller"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name} has {width} x {height} pixels; at most {MAX_SIDE:,} are read along a side. Cut it up")
    if pixels * scans > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"{name} is a JPEG of {scans} scans of {pixels:,} pixels; at most {MAX_SCANNED_PIXELS:,} pixels are read "
            "over all scans. Save it anew"
        )
    run_length = image.format in ("BMP", "DIB") and image.info.get("compression") in (1, 2)
    if run_length and pixels > max_pixels // RUN_LENGTH_PIXELS:
        raise ImageError(
            f"{name} is a run-length coded BMP of {pixels:,} pixels; at most {max_pixels // RUN_LENGTH_PIXELS:,} are "
            "read. Save it as PNG"
        )


def count_scans(data: bytes, name: str = "the image") -> int:
    """Count the scans of a JPEG's first image. Raises ImageError where it has too many segments or fill bytes."""
    if b"\xff" * MAX_FILL_BYTES in data:
        raise ImageError(f"{name} is a JPEG of {MAX_FILL_BYTES:,} fill bytes in a row; save it anew")
    position, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or found[1] == EOI:
            return scans
        scans += found[1] == SOS
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(2, length)
    raise ImageError(f"{name} is a JPEG of more than {MAX_SEGMENTS:,} segments; save it anew")


def _walk_png(data: bytes, name: str) -> None:
    """Walk over a PNG's chunks. Raises ImageError for too many, or too many compressed texts."""
    position, maximum, texts = 8, MAX_SEGMENTS + len(data) // 1024, 0
    for _ in range(maximum):
        if position >= len(data):
            return
        texts += data[position + 4 : position + 8] in (b"zTXt", b"iTXt", b"iCCP")
        if texts > MAX_PACKED_TEXTS:
            raise ImageError(f"{name} is a PNG of more than {MAX_PACKED_TEXTS} compressed texts; save it anew")
        position += 12 + int.from_bytes(data[position : position + 4], "big")  # length, kind, content, checksum
    raise ImageError(f"{name} is a PNG of more than {maximum:,} chunks; save it anew")


def _walk_gif(data: bytes, name: str) -> None:
    """Walk over a GIF's extensions and its first image, up to the second. Raises ImageError for too many of either."""
    position = _after_colours(data, 10, 13)
    blocks, extensions, images = 0, 0, 0
    while (kind := data[position : position + 1]) in (b"!", b",") and images < 2:
        start = position
        position = position + 2 if kind == b"!" else _after_colours(data, position + 9, position + 10) + 1
        while length := int.from_bytes(data[position : position + 1], "big"):
            position += 1 + length
            blocks += 1
            if blocks * MIN_BLOCK_BYTES > MAX_EXTENSION_BYTES + len(data):
                raise ImageError(f"{name} is a GIF of more than {blocks - 1:,} blocks; save it anew")
        position += 1
        images += kind == b","
        extensions += position - start if kind == b"!" else 0
        if extensions > MAX_EXTENSION_BYTES:
            raise ImageError(f"{name} is a GIF with more than {MAX_EXTENSION_BYTES:,} bytes of comments; save it anew")


def _after_colours(data: bytes, flags_at: int, end: int) -> int:
    """Return where a GIF goes on after a header that ends at ``end``, and the table of colours that its flags state."""
    flags = int.from_bytes(data[flags_at : flags_at + 1], "big")
    return end + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
