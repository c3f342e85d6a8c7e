"""What lmms-eval is told by the entry point ``lmms_eval.models``: a model's name, and where its class is."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The ``ModelManifest`` of ``--model ada_llava``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="ada_llava", simple_class_path="ada.eval.lmms.model.AdaLlava")
