"""Decodes a call of ``generate`` in the engine, which transformers prepares only where the call is not plain."""

from __future__ import annotations

from typing import Any

import torch

from ada.engine.loop import EngineLoop
from ada.engine.loop_settings import LoopSettings
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.token_clock import TokenClock


class DecodesInEngine(LlavaCausalLM):
    """Mixed in before a LLaVA: the engine's loop in place of transformers'."""

    def _generate_in_engine(self, loop: EngineLoop, clock: TokenClock | None, keywords: dict[str, Any]) -> Any:
        """Decode with the engine's loop, which transformers prepares only where the call is not plain."""
        batch, execution = loop.batch, loop.execution
        criteria = [*([] if clock is None else [clock]), *(keywords.get("stopping_criteria") or ())]
        settings = LoopSettings.plain(self, len(batch.embeds), {**keywords, "stopping_criteria": criteria})
        if settings is not None:
            if loop.streamer is not None:
                loop.streamer.put(torch.empty(len(batch.embeds), 0, dtype=torch.long))  # the prompt, which has no ids
            return loop.run(self, settings)
        return super().generate_from_embeds(batch, clock, execution=execution, custom_generate=loop, **keywords)
