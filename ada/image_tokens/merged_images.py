"""Makes a model read merged image tokens: where its checkpoint was trained so (``token_selecting``), or in a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ada.image_tokens.class_attention import check_class_token, queries_and_keys
from ada.image_tokens.encoded_images import EncodedImage
from ada.image_tokens.image_encoders import Encode, ImageEncoder
from ada.image_tokens.layout import Merging, cells_in
from ada.image_tokens.prumerge import Patches, chosen_patches, counted_patches, merge, prune_and_merge
from llava.errors import OptionError
from llava.model.llava_arch import LlavaMetaForCausalLM
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.states import TowerOutputs
from llava.protocols import Images, ImageSizes


class MergesImageTokens(LlavaMetaForCausalLM):
    """Mixed in before a LLaVA whose config may have ``token_selecting`` "prumerge" or "prumerge+"."""

    @property
    def merges_image_tokens(self) -> bool:
        """Whether images enter the decoder as merged tokens."""
        return getattr(self.config, "token_selecting", "none") != "none"

    def image_features(self, images: Images, image_sizes: ImageSizes | None = None) -> list[torch.Tensor]:
        """Encode images as one (n, D) tensor of features each, of merged tokens where the config says so."""
        if not self.merges_image_tokens:
            return super().image_features(images, image_sizes)
        return merged_image_features(self, images)

    def image_lengths(self, images: Images, image_sizes: ImageSizes | None = None) -> list[int] | None:
        """Return how many tokens ``image_features`` makes of each image; None for merged ones, before they are."""
        return None if self.merges_image_tokens else super().image_lengths(images, image_sizes)

    def max_image_tokens(self, size: tuple[int, int], num_images: int = 1) -> int:
        """Return how many decoder positions an image of (width, height) takes; the maximum where tokens are merged."""
        return super().max_image_tokens(size, num_images) + self.merges_image_tokens


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


class MergedAsTrained(ImageEncoder):
    """Encodes the images of a checkpoint that was trained on merged tokens, and says how many there are."""

    def __init__(self, model: Any, selector: str, mergings: Sequence[Merging], limits: Sequence[int | None]) -> None:
        super().__init__(model, selector, mergings, limits)
        self._lengths: list[int] = []

    def image_features(self, encode: Encode, images: Images, image_sizes: ImageSizes | None) -> list[torch.Tensor]:
        """Encode images as one (k + 1, D) tensor of merged features each."""
        features = encode(images, image_sizes)
        self._lengths = [len(image) for image in features]
        return features

    def lengths(self) -> list[int] | None:
        """Return how many merged tokens each image has, once they are made."""
        return self._lengths or None

    def encoded(self) -> list[EncodedImage]:
        """Return what each image is; where on it a merged token is is not said.

        They are not merged where a method that encodes images was replaced.
        """
        if len(self._lengths) != len(self.mergings):
            return super().encoded()
        crop = self.tower.num_patches
        return [
            EncodedImage(length, torch.zeros(length, 2), sides=(self.side,), projected=length, merged_from=crop)
            for length in self._lengths
        ]


class MergesImages(ImageEncoder):
    """Merges each image's patches as PruMerge or PruMerge+ does, under any checkpoint.

    An image's limit counts the token for the rest. Without one the number is the image's own, of its outliers, as
    published. Kept patches have their positions; the token for the rest has the one after the image's last.
    """

    def __init__(self, model: Any, selector: str, mergings: Sequence[Merging], limits: Sequence[int | None]) -> None:
        super().__init__(model, selector, mergings, limits)
        check_class_token(self.tower, selector)
        self._positions: list[torch.Tensor] = []
        if any(merging.crops not in (None, 1) or merging.merge_type == "spatial_unpad" for merging in mergings):
            raise OptionError(
                f"the token selector is {selector!r}, which merges images of one crop; this checkpoint cuts images "
                "into crops (image_aspect_ratio). Choose cls, salient, divprune or grid"
            )
        if self.tower.select_feature != "patch":
            raise OptionError(
                f"the token selector is {selector!r}, which merges patches; this checkpoint also reads the class token "
                f"(mm_vision_select_feature {self.tower.select_feature!r}). Choose cls, salient, divprune or grid"
            )

    def image_features(self, encode: Encode, images: Images, image_sizes: ImageSizes | None) -> list[torch.Tensor]:
        """Encode images as one (k + 1, D) tensor of merged features each."""
        model, plus = self.model, self.selector == "prumerge+"
        pixels, merged = torch.cat([image.view(1, *image.shape[-3:]) for image in images]), []
        with torch.no_grad():
            for patches, limit in zip(patches_of(self.tower, self.tower.outputs(pixels)), self.limits, strict=True):
                if limit is None:
                    chosen = chosen_patches(patches.attention, plus).sort().values
                else:
                    chosen = counted_patches(patches.attention, min(limit - 1, len(patches.features) - 1), plus)
                merged.append(merge(patches, chosen))
                self._positions.append(torch.cat([chosen, chosen.new_tensor([len(patches.features)])]))
        dtype = model.get_input_embeddings().weight.dtype
        return [model.get_model().mm_projector(image.to(dtype)) for image in merged]

    def lengths(self) -> list[int] | None:
        """Return how many merged tokens each image has, once they are made."""
        return [len(positions) for positions in self._positions] if self._positions else None

    def encoded(self) -> list[EncodedImage]:
        """Return what each image is; the token for the rest is at its centre."""
        if not self._positions:
            return super().encoded()
        found = []
        for layout, positions in zip(self.layouts, self._positions, strict=True):
            cells = cells_in(layout)
            own = torch.cat([cells[positions[:-1].cpu()], cells.mean(dim=0, keepdim=True)])
            found.append(EncodedImage(len(cells), own, positions, sides=(self.side,), projected=len(own)))
        return found


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
    yield from patches_of(tower, tower.outputs(pixels))


def patches_of(tower: Any, outputs: TowerOutputs) -> Iterator[Patches]:
    """Yield what PruMerge reads of each image in a pass through the tower: attention as one head of all channels."""
    hidden = outputs.hidden_states[tower.layers_run]
    queries, keys = queries_and_keys(tower, outputs)
    scores = queries @ keys.transpose(1, 2) * hidden.shape[-1] ** -0.5
    attention = scores.softmax(dim=-1)[:, 0, 1:]
    for image, own_keys, weights in zip(hidden[:, 1:], keys[:, 1:], attention, strict=True):
        yield Patches(image, own_keys, weights)
