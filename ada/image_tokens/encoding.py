"""Makes a model encode a call's images as its token selector needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch

from ada.image_tokens.amount import ImageTokens, ImageTokensLike, image_tokens_of_rows
from ada.image_tokens.encoded_images import EncodedImage, with_images
from ada.image_tokens.image_encoders import ImageEncoder, ReadsClassAttention
from ada.image_tokens.layout import Merging, tokens_in
from ada.image_tokens.merged_images import MergedAsTrained, MergesImages, MergesImageTokens
from ada.image_tokens.selection import for_selectors
from ada.image_tokens.selector_names import SelectorNames
from ada.image_tokens.shrunk_images import ShrinksImages
from ada.reuse.call_reuse import CallReuse
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import ImageError, OptionError
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.model.multimodal.aspect_ratio import max_crops
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.merge_inputs import features_by_row
from llava.protocols import Images, ImageSizes

ENCODERS: Mapping[str, type[ImageEncoder]] = {
    "cls": ReadsClassAttention,
    "prumerge": MergesImages,
    "prumerge+": MergesImages,
    "shrink": ShrinksImages,
}
"""What encodes images for a selector; for the others ``ImageEncoder`` does."""

# Of the call that is being embedded, in its own thread: from ``embed`` to the methods that it calls in turn.
_REUSE: ContextVar[CallReuse | None] = ContextVar("image_reuse", default=None)
_ENCODER: ContextVar[ImageEncoder | None] = ContextVar("image_encoder", default=None)


class EncodesImages(MergesImageTokens, LlavaCausalLM):
    """Mixed in before a LLaVA: its ``embed`` takes ``image_tokens`` and ``token_selector``."""

    def embedding_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what ``embed`` also takes, of the keywords of ``generate``."""
        return {name: options.get(name) for name in ("image_tokens", "token_selector", "reuse")}

    def embed(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike | None] | None = None,
        token_selector: str | None = None,
        reuse: CallReuse | None = None,
    ) -> EmbeddedBatch:
        """Embed prompts as LLaVA does, their images encoded for the selector; the batch says how they were.

        image_tokens, token_selector: as ``generate`` takes them; reuse: knows images that were encoded before. Raises
        OptionError for a selector that the model cannot follow.
        """
        given = input_ids, attention_mask, position_ids, labels, images, image_sizes
        token = _REUSE.set(reuse)
        try:
            return self._embed(given, image_tokens, token_selector)
        finally:
            _REUSE.reset(token)

    def _embed(
        self,
        given: tuple[Any, ...],
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike | None] | None,
        token_selector: str | None,
    ) -> EmbeddedBatch:
        input_ids, attention_mask, _, _, images, image_sizes = given
        names = SelectorNames.of(token_selector, self)
        amounts = for_selectors(image_tokens_of_rows(image_tokens, len(input_ids)), names)
        chooses = image_tokens is not None or token_selector is not None or _leaves_tokens_out(self)
        if images is None or self.get_vision_tower() is None or not (chooses or self.merges_image_tokens):
            return super().embed(*given)
        try:
            owned = _images_of_rows(input_ids, attention_mask, len(images))
            mergings = self._mergings(images, image_sizes)
        except ImageError:  # which the model's own way raises too, unless its methods were replaced
            return super().embed(*given)
        encoder = self._encoder(names, amounts, owned, mergings)
        token = _ENCODER.set(encoder)
        try:
            batch = super().embed(*given)
        finally:
            _ENCODER.reset(token)
        encoded = encoder.encoded()
        rows = [[encoded[number] for number in own] for own in owned]
        return with_images(batch, rows) if _fits(batch, rows) else batch

    def _encoder(
        self,
        names: SelectorNames,
        amounts: Sequence[ImageTokens],
        owned: Sequence[Sequence[int]],
        mergings: Sequence[Merging],
    ) -> ImageEncoder:
        """Return what encodes a call's images; ``owned`` says which are each row's."""
        if self.merges_image_tokens:
            return MergedAsTrained(self, names.front, mergings, [None] * len(mergings))
        kind = ENCODERS.get(names.front, ImageEncoder)
        enters_all = names.late_alone and not any(cuts_front(amount) for amount in amounts)
        if enters_all or (kind is ReadsClassAttention and not _any_left_out(self, amounts)):
            kind = ImageEncoder
        if kind is not ImageEncoder:
            check_before_budget(names.front, amounts)
        limits: list[int | None] = [None] * len(mergings)
        full = [tokens_in(merging.layout(self._tower().num_patches_per_side)) for merging in mergings]
        for amount, own in zip(amounts, owned, strict=True):
            if cuts_front(amount):
                for number, count in zip(own, amount.front.of_each([full[n] for n in own]), strict=True):
                    limits[number] = count
        return kind(self, names.front, mergings, limits)

    def _mergings(self, images: Images, image_sizes: ImageSizes | None) -> list[Merging]:
        """Return how each image's crops are merged. Raises ImageError for sizes that are not those of the images."""
        class_token = self._tower().num_image_tokens > self._tower().num_patches
        if isinstance(images, torch.Tensor) and images.dim() == 4:
            return [Merging(None, class_token=class_token)] * len(images)
        crops = [1 if image.dim() == 3 else len(image) for image in images]
        sizes = [None] * len(crops) if image_sizes is None else image_sizes
        if len(sizes) != len(crops):
            raise ImageError(f"{len(crops)} image(s) were given with {len(sizes)} image_sizes")
        return [
            Merging(count, self._merge_type, self._crop_grid(size), size, max_crops(self.config), class_token)
            for count, size in zip(crops, sizes, strict=True)
        ]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Encode pixels (N, 3, S, S) as features (N, P, D), those that are known excepted."""
        reuse, encoder = _REUSE.get(), _ENCODER.get()
        if reuse is None or not (encoder is None or type(encoder) is ImageEncoder):  # others look into the tower
            return super().encode_images(images)
        return reuse.encode(super().encode_images, images)

    def tower_features(self, tower: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Run the vision tower on pixels (N, 3, S, S) as the call's selector needs it: features (N, P, C)."""
        encoder = _ENCODER.get()
        return super().tower_features(tower, pixels) if encoder is None else encoder.tower_features(tower, pixels)

    def image_features(self, images: Images, image_sizes: ImageSizes | None = None) -> list[torch.Tensor]:
        """Encode images as one (n, D) tensor of features each, as the call's selector needs them."""
        encoder = _ENCODER.get()
        if encoder is None:
            return super().image_features(images, image_sizes)
        return encoder.image_features(super().image_features, images, image_sizes)

    def image_lengths(self, images: Images, image_sizes: ImageSizes | None = None) -> list[int] | None:
        """Return how many tokens ``image_features`` makes of each image, in the call that is being embedded."""
        encoder = _ENCODER.get()
        lengths = None if encoder is None else encoder.lengths()
        return super().image_lengths(images, image_sizes) if lengths is None else lengths


def check_before_budget(selector: str, amounts: Sequence[ImageTokens]) -> None:
    """Raise OptionError for ``auto`` with a selector that acts as images are encoded, before a budget is shared out."""
    if ENCODERS.get(selector) in (MergesImages, ShrinksImages) and any(amount.auto for amount in amounts):
        raise OptionError(
            f"--image-tokens is 'auto' with the token selector {selector!r}, which acts before the budget is "
            "shared out; give a number of tokens or a percentage, or choose salient, divprune or grid"
        )


def cuts_front(amount: ImageTokens) -> bool:
    """Return whether an amount, which is not what a budget decides, leaves out tokens before the decoder."""
    return not (amount.auto or amount.front.is_all)


def _leaves_tokens_out(model: Any) -> bool:
    """Return whether a call that does not say how many image tokens are read may still leave some out."""
    return getattr(model.config, "image_token_dropout", None) is not None


def _any_left_out(model: Any, amounts: Sequence[ImageTokens]) -> bool:
    return _leaves_tokens_out(model) or any(amount.auto or not amount.front.is_all for amount in amounts)


def _images_of_rows(ids: torch.Tensor, mask: torch.Tensor | None, count: int) -> list[Sequence[int]]:
    """Return which of ``count`` images are each row's; the image of a row without a tag is none's."""
    tags = ids == IMAGE_TOKEN_INDEX
    counts = (tags if mask is None else tags & mask.bool()).sum(dim=1).tolist()
    owned = features_by_row(counts, range(count))
    return [images[:tagged] for images, tagged in zip(owned, counts, strict=True)]


def _fits(batch: EmbeddedBatch, rows: Sequence[Sequence[EncodedImage]]) -> bool:
    """Return whether the images' tokens are those of the batch; its rows may have lost their ends."""
    spans = [] if batch.image_spans is None else batch.image_spans
    return len(spans) == len(rows) and all(
        len(own) == len(images) and all(len(span) <= len(image) for span, image in zip(own, images, strict=True))
        for own, images in zip(spans, rows, strict=True)
    )
