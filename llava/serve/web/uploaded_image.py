"""An image that a visitor of the demo has sent: read once, as workers take it, and small copies of it to show."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from llava.errors import ImageError
from llava.files.images import MIB, REQUEST_FORMATS, ImageLimits, open_image

MAX_SIDES = (1344, 672)  # pixels, the longer and the shorter; a request with as many images as it may have is taken
SHOWN_SIDE = 320  # pixels of an image in the conversation
LIMITS = ImageLimits(max_bytes=20 * MIB, max_pixels=50_000_000, formats=REQUEST_FORMATS, still=True)


@dataclass(frozen=True)
class UploadedImage:
    """An image as it is sent to a worker, in PNG bytes, and the ``path`` of the file that the browser sent.

    The path is "" for an image of a conversation that was opened by its link.
    """

    png: bytes
    path: str = ""

    @classmethod
    def read(cls, path: str, number: int) -> UploadedImage:
        """Read a file that the browser sent, upright. Raises ImageError where workers would refuse it, or too large.

        number: the image's in its question; messages name it by this, not by where the server keeps the file.
        """
        name = f"image {number}"
        if not Path(path).is_file():
            raise ImageError(f"{name} has not arrived, or was deleted meanwhile; send it again")
        image = open_image(Path(path).read_bytes(), LIMITS, turn_by_exif=True, name=name).image
        image.thumbnail(MAX_SIDES if image.width > image.height else MAX_SIDES[::-1], Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return cls(buffer.getvalue(), path)

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.png).hexdigest()

    @cached_property
    def url(self) -> str:
        """A small copy of the image, as a URL that holds it."""
        return jpeg_url(self.png, SHOWN_SIDE)


def jpeg_url(encoded: bytes, max_side: int) -> str:
    """Return an image's copy, of at most ``max_side`` pixels a side, as a data URL."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    small.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
