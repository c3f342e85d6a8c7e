"""Takes columns out of attention masks, in each of the forms that transformers gives a layer.

None (attend to all columns, causally), bool (True: attend) or additive of shape (B, 1, q, K), or, for flash attention,
(B, K) of zeros and ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llava.errors import OptionError

if TYPE_CHECKING:
    from ada.execution.late_tokens import Slices


def masked_columns(layer: Any, mask: Any, stays: torch.Tensor, hidden: torch.Tensor, width: int) -> torch.Tensor:
    """Return a decode step's mask over ``width`` columns without those that do not stay.

    stays: (B, T), bool, of the first T columns; those after them stay. hidden: (B, q, D), what the step reads. A
    sliding window's mask is of the last columns alone.
    """
    later = stays.new_ones(len(stays), width - stays.shape[1])
    stays = torch.cat([stays, later], dim=1).to((mask if isinstance(mask, torch.Tensor) else hidden).device)
    if mask is None and uses_flash_attention(layer):
        return stays.long()
    given = checked(mask)
    if given is not None:
        stays = stays[:, -given.shape[-1] :]
    if given is not None and given.dim() == 2:
        return given * stays
    stays = stays[:, None, None]
    if given is not None and given.dtype == torch.bool:
        return given & stays
    if given is None:
        given = hidden.new_zeros(len(stays), 1, hidden.shape[1], width)
    return given.masked_fill(~stays, torch.finfo(given.dtype).min)


def sliced_mask(layer: Any, mask: Any, slices: Slices, hidden: torch.Tensor) -> torch.Tensor | None:
    """Return a prompt's mask for the columns of ``slices``: None where it was, if no row is padded by them."""
    given = checked(mask)
    if given is None:
        return _padded_causal(layer, slices, hidden) if slices.ragged else None
    if given.dim() == 2:
        return slices.take(given) * slices.real.to(given.device)
    columns = slices.columns.to(given.device)
    given = given.expand(len(columns), *given.shape[1:])
    rows = given.gather(2, columns[:, None, :, None].expand(-1, given.shape[1], -1, given.shape[3]))
    taken = rows.gather(3, columns[:, None, None, :].expand(-1, given.shape[1], rows.shape[2], -1))
    if not slices.ragged:
        return taken
    real = slices.real.to(given.device)[:, None, None]
    if given.dtype == torch.bool:
        return _additive(taken & real, hidden.dtype)
    return taken.masked_fill(~real, torch.finfo(taken.dtype).min)


def _padded_causal(layer: Any, slices: Slices, hidden: torch.Tensor) -> torch.Tensor:
    """The causal mask of rows that ``slices`` pads."""
    if uses_flash_attention(layer):
        return slices.real.long()
    width = slices.real.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=hidden.device).tril()
    return _additive(causal[None, None] & slices.real.to(hidden.device)[:, None, None], hidden.dtype)


def uses_flash_attention(layer: Any) -> bool:
    """Return whether a decoder layer's masks are those of flash attention."""
    return "flash" in (layer.self_attn.config._attn_implementation or "")


def checked(mask: Any) -> torch.Tensor | None:
    """Return the mask. Raises OptionError for one that is no tensor, as flex attention's."""
    if mask is None or isinstance(mask, torch.Tensor):
        return mask
    raise OptionError(
        f"the attention mask is a {type(mask).__name__}, of which no columns can be left out; load the model with "
        "attn_implementation sdpa, eager or flash_attention_2, or give --image-tokens one amount"
    )


def _additive(attends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask; its finite minimum leaves a row that attends to nothing without NaN."""
    return torch.zeros(attends.shape, dtype=dtype, device=attends.device).masked_fill(~attends, torch.finfo(dtype).min)
