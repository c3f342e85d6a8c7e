"""Merges an image's tokens as PruMerge and PruMerge+ do (arXiv 2403.15388), which some published checkpoints expect.

Few patches draw the class token's attention. These are kept; each takes up its most similar patches, weighted by their
attention, and all that are not kept become one token more. PruMerge+ also keeps patches at even distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from llava.errors import OptionError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

NEIGHBOURS = 32  # patches that each kept one takes up
FIXED_SHARE = 0.125  # of the patches, where outliers are not counted
PLUS_DENSITY = 3  # PruMerge+ keeps so many even patches for each outlier


@dataclass(frozen=True)
class Patches:
    """What PruMerge reads of the vision tower, for one image: n patches of C channels.

    features: (n, C), of the selected layer. keys: (n, C), which the next layer's attention makes of them. attention:
    (n,), the class token's there.
    """

    features: torch.Tensor
    keys: torch.Tensor
    attention: torch.Tensor


def merged_image_features(model: Any, images: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Encode images as PruMerge's tokens in the decoder's space, (k + 1, D) each; k differs from image to image.

    images: pixels (N, 3, S, S), or a list of (3, S, S) or (1, 3, S, S). Each image's outliers are its own, also in a
    batch, where the published code counts them over all images. Raises OptionError for an image of several crops, and
    for a vision tower without what PruMerge reads.
    """
    pixels = [image[None] if image.dim() == 3 else image for image in images]
    if any(len(image) != 1 for image in pixels):
        raise OptionError(
            f"token_selecting is {model.config.token_selecting!r}, which merges images of one crop; set "
            "image_aspect_ratio to pad, or token_selecting to none, in the checkpoint's config.json"
        )
    tower, projector = model.get_vision_tower(), model.get_model().mm_projector
    plus, dtype = model.config.token_selecting == "prumerge+", model.get_input_embeddings().weight.dtype
    with torch.no_grad():
        tokens = [prune_and_merge(patches, plus) for patches in read_patches(tower, torch.cat(pixels))]
    return [projector(image.to(dtype)) for image in tokens]


def read_patches(tower: Any, pixels: torch.Tensor) -> Iterator[Patches]:
    """Yield what PruMerge reads of each image of ``pixels`` (N, 3, S, S).

    Raises OptionError for a tower other than a plain CLIP's, and where no layer follows the selected one.
    """
    layers = tower.vision_tower.vision_model.encoder.layers
    if type(tower) is not CLIPVisionTower or tower.layers_run == len(layers):
        raise OptionError(
            "token_selecting reads the attention of a CLIP tower's layer after the selected one; this "
            f"{type(tower).__name__} has {len(layers)} layers, and mm_vision_select_layer is {tower.select_layer}. "
            "Set token_selecting to none in the checkpoint's config.json"
        )
    hidden = tower.outputs(pixels).hidden_states[tower.layers_run]
    layer = layers[tower.layers_run]
    normed = layer.layer_norm1(hidden)
    queries, keys = layer.self_attn.q_proj(normed[:, :1]), layer.self_attn.k_proj(normed)
    scores = queries @ keys.transpose(1, 2) * hidden.shape[-1] ** -0.5
    attention = scores.softmax(dim=-1)[:, 0, 1:]
    for image, own_keys, weights in zip(hidden[:, 1:], keys[:, 1:], attention, strict=True):
        yield Patches(image, own_keys, weights)


def prune_and_merge(patches: Patches, plus: bool = False, share: float | None = None) -> torch.Tensor:
    """Return the kept patches' features with what they took up, and one token for the rest: (k + 1, C).

    share: of the patches that are kept, before PruMerge+ adds its own; by default that of ``outlier_share``.
    """
    return merge(patches, chosen_patches(patches.attention, plus, share))


def outlier_share(attention: torch.Tensor) -> float:
    """Return the share of values above the third quartile by more than 1.5 interquartile ranges; any shape."""
    values = attention.flatten().double()
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype, device=values.device))
    return float((values > high + 1.5 * (high - low)).double().mean())


def chosen_patches(attention: torch.Tensor, plus: bool = False, share: float | None = None) -> torch.Tensor:
    """Return the indices of the kept patches, the most attended first, then those that PruMerge+ adds.

    attention: (n,). A fixed ``share`` adds even patches whether they are chosen already or not, as published.
    """
    count = len(attention)
    fixed = share is not None
    share = outlier_share(attention) if share is None else share
    top = attention.topk(int(count * share)).indices
    if not plus or share == 0:
        return top
    step = int(1 / share)
    if fixed:
        return torch.cat([top, torch.arange(step // 2, count, step, device=top.device)])
    even = torch.arange(0, count - 1, max(1, step // PLUS_DENSITY), device=top.device)
    return torch.cat([top, even[~torch.isin(even, top)]])


def merge(patches: Patches, chosen: torch.Tensor) -> torch.Tensor:
    """Return (k + 1, C): each of the ``chosen`` (k,) patches with its neighbours, then the sum of all others."""
    count, kept = len(patches.features), len(chosen)
    rest = torch.ones(count, dtype=torch.bool, device=chosen.device)
    rest[chosen] = False
    others = rest.nonzero().flatten()[kept - count :]  # as published, where a patch is chosen twice
    pool = torch.cat([chosen, others])
    keys = functional.normalize(patches.keys[pool], dim=-1)
    similarity = keys[:kept] @ keys.T
    similarity.fill_diagonal_(-torch.inf)  # not itself
    near = similarity.topk(min(NEIGHBOURS, len(pool) - 1), dim=1).indices
    weighted = patches.features * patches.attention[:, None]
    merged = patches.features[chosen] + weighted[pool[near]].sum(dim=1)
    return torch.cat([merged, weighted[others].sum(dim=0, keepdim=True)])
