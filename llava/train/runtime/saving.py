"""What training leaves behind: a whole checkpoint, or in stage 1 the projector alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from llava.files.atomic_write import atomic_folder

PROJECTOR_FILE = "mm_projector.bin"
PROJECTOR_KEYS = ("mm_projector", "vision_resampler")
TOKEN_KEYS = ("embed_tokens", "embed_in")  # learned too where tokens are put around a picture


def projector_state(state: dict[str, torch.Tensor], with_tokens: bool) -> dict[str, torch.Tensor]:
    """The tensors of a projector-only file, under their names in the whole model."""
    wanted = (*PROJECTOR_KEYS, *(TOKEN_KEYS if with_tokens else ()))
    return {key: value.detach().cpu() for key, value in state.items() if any(name in key for name in wanted)}


def save_projector(trainer: Any, folder: str, state: dict[str, torch.Tensor] | None = None) -> None:
    """``config.json`` and ``mm_projector.bin``. state: the model's tensors, where they are at hand."""
    if state is None:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers a sharded model, on every process
    if not trainer.args.should_save:
        return
    config = trainer.model.config
    with atomic_folder(Path(folder)) as part:
        config.save_pretrained(part)
        torch.save(projector_state(state, getattr(config, "mm_use_im_start_end", False)), part / PROJECTOR_FILE)


def save_model(trainer: Any, folder: str) -> None:
    """The whole model with its tokenizer and processor files, in bfloat16 where it was trained with ``--bf16``."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.args.should_save:
        return
    model, half = trainer.model, trainer.args.bf16
    if half:
        state = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in state.items()}
    caching, model.config.use_cache = model.config.use_cache, True
    with atomic_folder(Path(folder)) as part:
        model.save_pretrained(part, state_dict=state)
        if half:
            _state_dtype(part / "config.json", "bfloat16")
        trainer.processing_class.save_pretrained(part)
    model.config.use_cache = caching


def _state_dtype(path: Path, dtype: str) -> None:
    """Let a config state the file's dtype: transformers writes down the model's, which trains in float32."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, "dtype": dtype, "torch_dtype": dtype}, indent=2) + "\n", encoding="utf-8")
