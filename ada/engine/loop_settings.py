"""States what a decoding loop is to do, read off transformers' prepared settings or, where they are plain, off a call.

transformers prepares a call of ``generate`` in one to three milliseconds, a fifth of a small model's time to first
token; what most calls ask for needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria

Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Keywords of a plain call, and what a model's generation config may set without changing it.
KEYWORDS = frozenset(
    "max_new_tokens max_length do_sample num_beams use_cache pad_token_id eos_token_id return_dict_in_generate "
    "output_logits output_scores streamer stopping_criteria logits_processor".split()
)
HARMLESS = KEYWORDS | frozenset("bos_token_id temperature top_p top_k transformers_version".split())


@dataclass(frozen=True)
class LoopSettings:
    """Settings of one call's loop.

    processors: token ids so far (B, t) and logits (B, V) -> scores; criteria: ids and scores -> (B,), whether a row has
    ended. pad: (), the token of rows that have ended, None to go on with what is drawn.
    """

    processors: Choose
    criteria: Choose
    sample: bool
    pad: torch.Tensor | None
    returns_dict: bool
    keeps_scores: bool
    keeps_logits: bool

    @classmethod
    def prepared(cls, config: GenerationConfig, processors: Choose, criteria: Choose) -> LoopSettings:
        """Read what transformers has prepared for a call."""
        return cls(
            processors,
            criteria,
            bool(config.do_sample),
            config._pad_token_tensor,
            bool(config.return_dict_in_generate),
            bool(config.output_scores),
            bool(config.output_logits),
        )

    @classmethod
    def plain(cls, model: Any, rows: int, keywords: Mapping[str, Any]) -> LoopSettings | None:
        """Read a greedy call's own keywords; None where transformers has to prepare it."""
        config, limit = model.generation_config, keywords.get("max_new_tokens")
        given = {**{name: getattr(config, name, None) for name in KEYWORDS}, **keywords}
        set_by_model = {name for name, value in vars(config).items() if value and not name.startswith("_")}
        rare = keywords.keys() - KEYWORDS or set_by_model - HARMLESS
        greedy = not given["do_sample"] and (given["num_beams"] or 1) == 1
        padded = rows == 1 or given["pad_token_id"] is not None
        if rare or not (greedy and padded and isinstance(limit, int) and limit > 0):
            return None
        device, pad, ends = model.device, given["pad_token_id"], given["eos_token_id"]
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        criteria = PlainCriteria(limit, torch.tensor(ends, device=device), list(given["stopping_criteria"] or ()))
        return cls(
            LogitsProcessorList(given["logits_processor"] or ()),
            criteria,
            False,
            None if pad is None or not ends else torch.tensor(pad, device=device),
            bool(given["return_dict_in_generate"]),
            bool(given["output_scores"]),
            bool(given["output_logits"]),
        )


@dataclass(frozen=True)
class PlainCriteria:
    """Ends a row at ``limit`` tokens, at an end token, or where one of ``others``, which see each token, says so."""

    limit: int
    ends: torch.Tensor
    others: Sequence[StoppingCriteria]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return (B,) bool: whether each row of input_ids (B, t) has ended."""
        done = torch.isin(input_ids[:, -1], self.ends)
        if input_ids.shape[1] >= self.limit:
            done = torch.ones_like(done)
        for other in self.others:
            done = done | other(input_ids, scores)
        return done
