"""Registers the model ``ada_llava`` with lmms-eval, through the entry point ``lmms_eval.models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Return the ``ModelManifest`` of ``--model ada_llava``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="ada_llava", simple_class_path="ada.eval.lmms.model.AdaLlava")
