"""Writes drawn scenes as PNG files, atomically."""

from __future__ import annotations

import io
from pathlib import Path

from llava.files.atomic_write import atomic_write
from playground.shapes.draw import draw
from playground.shapes.scene import Scene


def png(scene: Scene) -> bytes:
    """Return the drawn scene as a PNG file's bytes."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, format="png")
    return buffer.getvalue()


def save_image(scene: Scene, path: Path) -> None:
    """Draw a scene into a PNG file; its folder is created."""
    atomic_write(path, png(scene))
