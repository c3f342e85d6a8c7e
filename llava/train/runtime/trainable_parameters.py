"""Counts the trainable parameters by part of the model."""

from __future__ import annotations

from torch import nn

from llava.model.checkpoint.zero3 import size

PARTS = (
    ("LoRA adapters", ("lora_",)),
    ("projector", ("mm_projector", "image_newline")),
    ("embeddings and output layer", ("embed_tokens", "transformer.wte", "lm_head")),
    ("language model", ("model.layers.", "model.norm.", "transformer.blocks.", "transformer.norm_f.")),
    ("vision tower", ("vision_tower",)),
)


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to; for what a plug-in adds, the first part of its name."""
    for part, marks in PARTS:
        if any(mark in name for mark in marks):
            return part
    return name.partition(".")[0]


def trainable_by_part(model: nn.Module) -> dict[str, int]:
    """Count each part's trainable parameters; parts without one are left out."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[part_of(name)] = counts.get(part_of(name), 0) + size(parameter)
    return counts
