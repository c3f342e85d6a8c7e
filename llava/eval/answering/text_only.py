"""Lets a plain language model answer questions without images as a LLaVA does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteriaList

from llava.errors import OptionError
from llava.token_clock import TokenClock


class TextOnlyModel:
    """A language model of transformers with the ``generate`` of a LLaVA; all else is the language model's."""

    def __init__(self, model: Any) -> None:
        self.language_model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.language_model, name)

    def generate(
        self,
        inputs: torch.Tensor,
        images: Sequence[torch.Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        clock: TokenClock | None = None,
        **keywords: Any,
    ) -> Any:
        """Continue the prompts ``inputs`` (B, t); ``sequences`` of what is returned are the new tokens alone.

        clock: stamps every token. keywords: transformers'; ``return_dict_in_generate`` is expected. Raises OptionError
        for images.
        """
        if images is not None or image_sizes is not None:
            raise OptionError("this model has no vision tower, and cannot answer questions about images")
        if clock is not None:
            clock.called = time.perf_counter()
            criteria = [clock, *(keywords.get("stopping_criteria") or ())]
            keywords["stopping_criteria"] = StoppingCriteriaList(criteria)
        output = self.language_model.generate(inputs, **keywords)
        output.sequences = output.sequences[:, inputs.shape[1] :]
        return output
