"""Writes drawn scenes as PNG files, atomically."""

from __future__ import annotations

import io
from pathlib import Path

from llava.files.atomic_write import atomic_write
from playground.shapes.draw import draw
from playground.shapes.scene import SIDE, Scene


def png(scene: Scene, side: int = SIDE) -> bytes:
    """Return the scene as a PNG file's bytes, drawn with ``side`` by ``side`` pixels."""
    buffer = io.BytesIO()
    draw(scene, side).save(buffer, format="png")
    return buffer.getvalue()


def save_image(scene: Scene, path: Path, side: int = SIDE) -> None:
    """Draw a scene into a PNG file; its folder is created."""
    atomic_write(path, png(scene, side))
