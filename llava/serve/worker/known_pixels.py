"""Keeps the pixels that the last images have become: every turn of a chat sends its images again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

MAX_BYTES = 1 << 27  # of pixels


@dataclass(frozen=True)
class ReadImage:
    """An image at the model's size: pixels (3, S, S) or (crops, 3, S, S), and its (width, height) as it was sent.

    note: what the reply is to say of it, in which NAME stands for the image; None where there is nothing to say.
    """

    pixels: torch.Tensor
    size: tuple[int, int]
    note: str | None = None


NAME = "{image}"
Key = tuple[bytes, int]


def key_of(text: str, num_images: int) -> Key:
    """Return what an image is known by that is sent as ``text``, one of ``num_images`` of a prompt."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest(), num_images


class KnownPixels:
    """Thread-safe. Of one worker, as its limits and its model make the pixels. max_bytes: of all that is kept."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: OrderedDict[Key, ReadImage] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key) -> ReadImage | None:
        """Return what an image became; None where it is not known."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def add(self, key: Key, image: ReadImage) -> None:
        """Keep an image; those whose last use is longest ago go for it. One above the limit is not kept."""
        size = image.pixels.nbytes
        with self._lock:
            if key in self._kept or size > self.max_bytes:
                return
            self._kept[key] = image
            self.num_bytes += size
            while self.num_bytes > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.num_bytes -= oldest.pixels.nbytes
