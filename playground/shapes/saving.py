"""Pictures and texts on the disk: written beside, then renamed, so that a final name always holds a whole file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from playground.shapes.draw import draw
from playground.shapes.scene import Scene


def png(scene: Scene) -> bytes:
    """The drawn scene as PNG."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, format="png")
    return buffer.getvalue()


def save_picture(scene: Scene, path: Path) -> None:
    """The drawn scene as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(png(scene))
    part.replace(path)


def write_beside(path: Path, text: str | Iterable[str]) -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(text), encoding="utf-8")
    part.replace(path)
