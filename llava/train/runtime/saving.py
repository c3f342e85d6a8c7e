"""Saves the result of a training run: a full checkpoint, or in stage 1 the projector alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from llava.files.atomic_write import atomic_folder

PROJECTOR_FILE = "mm_projector.bin"
PROJECTOR_KEYS = ("mm_projector", "vision_resampler", "image_newline")
TOKEN_KEYS = ("embed_tokens", "embed_in")  # trained too with --mm_use_im_start_end


def projector_state(state: dict[str, torch.Tensor], with_tokens: bool) -> dict[str, torch.Tensor]:
    """Select the tensors of a projector-only file, under their names in the full model.

    with_tokens: the embeddings too.
    """
    wanted = (*PROJECTOR_KEYS, *(TOKEN_KEYS if with_tokens else ()))
    return {key: value.detach().cpu() for key, value in state.items() if any(name in key for name in wanted)}


def gathered_state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return all tensors of the trained model; a sharded model is gathered, for which every process must call this."""
    state: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


@contextmanager
def caching(config: Any) -> Iterator[None]:
    """Let a config have ``use_cache``, which training turns off, while it is saved for whoever answers with it."""
    before, config.use_cache = config.use_cache, True
    try:
        yield
    finally:
        config.use_cache = before


def save_projector(trainer: Trainer, folder: str, state: dict[str, torch.Tensor] | None = None) -> None:
    """Save ``config.json`` and ``mm_projector.bin``.

    state: the model's tensors where the caller has them; else they are gathered, which every process must do.
    """
    if state is None:
        state = gathered_state(trainer)
    if not trainer.args.should_save:
        return
    config = trainer.model.config
    with atomic_folder(Path(folder)) as part, caching(config):
        config.save_pretrained(part)
        torch.save(projector_state(state, getattr(config, "mm_use_im_start_end", False)), part / PROJECTOR_FILE)


def save_model(trainer: Trainer, folder: str) -> None:
    """Save model, image processor, and the tokenizer where there is one; in bfloat16 after training with ``--bf16``."""
    state = gathered_state(trainer)
    if not trainer.args.should_save:
        return
    model, half = trainer.model, trainer.args.bf16
    if half:
        state = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in state.items()}
    with atomic_folder(Path(folder)) as part, caching(model.config):
        model.save_pretrained(part, state_dict=state)
        if half:
            _set_dtype(part / "config.json", "bfloat16")
        if trainer.processing_class is not None:  # a script's trainer may have none
            trainer.processing_class.save_pretrained(part)


def _set_dtype(path: Path, dtype: str) -> None:
    """Write the weight file's dtype to a config: transformers wrote the model's, which is trained in float32."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, "dtype": dtype, "torch_dtype": dtype}, indent=2) + "\n", encoding="utf-8")
