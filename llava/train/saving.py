"""What training leaves behind: a whole checkpoint, or in stage 1 the projector alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

PROJECTOR_FILE = "mm_projector.bin"
PROJECTOR_KEYS = ("mm_projector", "vision_resampler")
TOKEN_KEYS = ("embed_tokens", "embed_in")  # learned too where tokens are put around a picture


def projector_state(state: dict[str, torch.Tensor], with_tokens: bool) -> dict[str, torch.Tensor]:
    """The tensors of a projector-only file, under their names in the whole model."""
    wanted = (*PROJECTOR_KEYS, *(TOKEN_KEYS if with_tokens else ()))
    return {key: value.detach().cpu() for key, value in state.items() if any(name in key for name in wanted)}


def save_projector(trainer: Any, folder: str) -> None:
    """``config.json`` and ``mm_projector.bin``, the latter under its final name only when it is whole."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers a sharded model, on every process
    if not trainer.args.should_save:
        return
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    trainer.model.config.save_pretrained(target)
    part = target / f"{PROJECTOR_FILE}.part"
    torch.save(projector_state(state, getattr(trainer.args, "use_im_start_end", False)), part)
    part.replace(target / PROJECTOR_FILE)


def save_model(trainer: Any, folder: str) -> None:
    """The whole model with its tokenizer and processor files, in bfloat16 where it was trained with ``--bf16``."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.args.should_save:
        return
    model, half = trainer.model, trainer.args.bf16
    if half:
        state = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in state.items()}
    kept, caching = model.config.dtype, model.config.use_cache
    model.config.dtype = torch.bfloat16 if half else kept
    model.config.use_cache = True
    _mend_generation_config(model)
    model.save_pretrained(folder, state_dict=state)
    trainer.processing_class.save_pretrained(folder)
    model.config.dtype, model.config.use_cache = kept, caching


def _mend_generation_config(model: Any) -> None:
    """Sampling settings without sampling, as Vicuna's files have them, make saving fail: turn sampling on."""
    config = model.generation_config
    if not config.do_sample and (config.temperature not in (None, 1.0) or config.top_p not in (None, 1.0)):
        config.do_sample = True
