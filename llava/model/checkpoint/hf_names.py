"""Translates tensor names between LLaVA's checkpoint layout and that of transformers' own LLaVA classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TOWER = "model.vision_tower.vision_tower.vision_model."

# Names in transformers' files, of any release -> LLaVA's. The first that fits is applied.
_TO_LLAVA = (
    (r"^(?:model\.)?multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^(?:model\.)?multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^(?:model\.)?vision_tower\.(?:vision_model\.)?", TOWER),
    (r"^(?:model\.)?image_newline$", "model.image_newline"),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(?:language_model\.model|model\.language_model)\.", "model."),
)
_TO_HUB = (  # the names that every release of transformers reads
    (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
    (rf"^{re.escape(TOWER)}", "vision_tower.vision_model."),
    (r"^model\.image_newline$", "image_newline"),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.", "language_model.model."),
)


def is_hub_layout(fields: Mapping[str, Any]) -> bool:
    """Return whether a config.json's fields are those of transformers' own LLaVA classes."""
    return "text_config" in fields


def llava_name(key: str) -> str:
    """Return a tensor's name in LLaVA's layout, from its name in either layout."""
    return _renamed(key, _TO_LLAVA)


def hub_name(key: str) -> str:
    """Return a tensor's name in transformers' files, from its name in LLaVA's layout."""
    return _renamed(key, _TO_HUB)


def _renamed(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, name in names:
        new, count = re.subn(pattern, name, key)
        if count:
            return new
    return key
