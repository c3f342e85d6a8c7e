"""Saves drawn scenes and text files, atomically."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from llava.files.atomic_write import atomic_write
from playground.shapes.draw import draw
from playground.shapes.scene import Scene


def png(scene: Scene) -> bytes:
    """Draw a scene and return it as the bytes of a PNG file."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, format="png")
    return buffer.getvalue()


def save_image(scene: Scene, path: Path) -> None:
    """Draw a scene into a PNG file."""
    atomic_write(path, png(scene))


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a text, or its parts one after the other, as UTF-8."""
    atomic_write(path, "".join(text))
