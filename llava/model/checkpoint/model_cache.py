"""Says where this user's own copies of models are, which checkpoints may name as what they were trained on."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def cached_model(name: str) -> Path:
    """Return the folder that a model of this name has in this user's cache, whether it is there or not."""
    return platformdirs.user_cache_path("ada-llava", appauthor=False) / "models" / name
