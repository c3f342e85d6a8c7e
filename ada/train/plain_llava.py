"""Makes a plain LLaVA leave image tokens out of its training samples, without a scheduler.

The token dial alone: what is saved is a plain LLaVA's checkpoint, which upstream reads, too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ada.image_tokens.amount import ImageTokensLike, image_tokens_of_rows
from ada.image_tokens.encoding import EncodesImages
from ada.image_tokens.selection import check_columns_known, row_tokens, with_selected_tokens
from ada.image_tokens.selector_names import SelectorNames
from ada.model.budgeted_output import BudgetedOutput
from ada.model.families import ADAPTIVE_MODELS
from llava.errors import OptionError


class LeavesTokensOut(EncodesImages):
    """Mixed in before a plain LLaVA's class: its ``forward`` takes ``image_tokens`` and ``token_selector``."""

    def forward(  # type: ignore[override]  # by keyword alone, as trainers call it
        self,
        input_ids: torch.Tensor | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: Any = None,
        image_sizes: Any = None,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None = None,
        token_selector: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run LLaVA's forward on token ids (B, t), on as many tokens of each image as ``image_tokens`` says.

        The output then carries the ``labels`` of the logits' positions. Without ``image_tokens`` it is LLaVA's own.
        """
        given: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids, "labels": labels}
        pixels: dict[str, Any] = {"images": images, "image_sizes": image_sizes}
        if image_tokens is None:
            return super().forward(input_ids, **given, **pixels, **kwargs)
        if input_ids is None:
            raise OptionError("image_tokens needs input_ids: in embeddings the columns of images are not known")
        amounts = image_tokens_of_rows(image_tokens, len(input_ids))
        batch = self.embed(input_ids, **given, **pixels, image_tokens=image_tokens, token_selector=token_selector)
        check_columns_known(batch, amounts)
        front = SelectorNames.of(token_selector, self).front
        batch = with_selected_tokens(batch, row_tokens(batch, amounts), front, "right")
        inputs: dict[str, Any] = {**kwargs, **batch.inputs()}  # peft names inputs_embeds, as None
        outputs = super().forward(**inputs)
        return outputs if isinstance(outputs, tuple) else BudgetedOutput(**outputs, labels=batch.labels)


@functools.cache
def _trained_class(plain: type) -> type:
    """The class for training, under the plain one's name, which is what a checkpoint's ``architectures`` states."""
    return type(plain.__name__, (LeavesTokensOut, plain), {"__module__": plain.__module__})


def leave_tokens_out(model: Any) -> None:
    """Let a plain LLaVA's ``forward`` leave image tokens out, in place; its config and its tensors stay as they are.

    model: also a peft model around one. Raises OptionError for a decoder family whose positions cannot have gaps.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(plain, LeavesTokensOut):
        return
    if type(plain) not in ADAPTIVE_MODELS:
        known = ", ".join(kind.__name__ for kind in ADAPTIVE_MODELS)
        raise OptionError(f"--image_token_dropout needs one of {known}; this model is {type(plain).__name__}")
    kind: Any = type(plain)
    plain.__class__ = _trained_class(kind)
