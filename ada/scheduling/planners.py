"""Planners: granted units -> gates. One is learned; three untrained ones are baselines, and serve plain LLaVA."""

from __future__ import annotations

from typing import Protocol

import torch

from ada.scheduling.selection import Noise, gumbel, select_layers, select_switches
from ada.scheduling.units import Units
from llava.errors import OptionError


class Planner(Protocol):
    """``granted`` (B,) tunable units -> gates (B, N, 2, A): heads and neuron groups of every tunable layer.

    ``logits`` are the scheduler's, None where the model has none; ``noise`` is given in training only.
    """

    def __call__(
        self, units: Units, granted: torch.Tensor, logits: torch.Tensor | None, noise: Noise | None = None
    ) -> torch.Tensor: ...


def learned_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None, noise: Noise | None = None
) -> torch.Tensor:
    """What the scheduler scores best."""
    if logits is None:
        raise OptionError("this model has no scheduler; train one, or choose --planner even, last or random")
    if units.kind == "L":
        return _whole_layers(select_layers(logits, granted, noise), units)
    return select_switches(logits, granted, units.rank, noise)


def random_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Uniform draws: the noise of training, else torch's global generator, which ``torch.manual_seed`` repeats."""
    shape = (len(granted), units.num_tunable_layers, *(() if units.kind == "L" else (2, units.num_switches)))
    return learned_planner(units, granted, (noise or gumbel(device=granted.device))(shape))


def even_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Units spread evenly over the tunable layers, and heads and groups evenly within a layer."""
    layers = units.num_tunable_layers
    units_of_layer = _spread(granted, layers)  # (B, N)
    if units.kind == "L":
        return _whole_layers(units_of_layer.float(), units)
    switches = _spread((units_of_layer * units.rank).flatten(), units.num_switches)
    return switches.view(len(granted), layers, 1, -1).expand(-1, -1, 2, -1).float()


def last_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """The last layers are dropped: units fill the tunable layers from the first one on."""
    before = torch.arange(units.num_tunable_layers, device=granted.device) * units.per_layer
    units_of_layer = (granted[:, None] - before).clamp(0, units.per_layer)  # (B, N)
    if units.kind == "L":
        return _whole_layers(units_of_layer.float(), units)
    index = torch.arange(units.num_switches, device=granted.device)
    switches = index < (units_of_layer * units.rank)[..., None]  # (B, N, A)
    return switches[:, :, None].expand(-1, -1, 2, -1).float()


PLANNERS: dict[str, Planner] = {
    "learned": learned_planner,
    "even": even_planner,
    "last": last_planner,
    "random": random_planner,
}


def planner_named(name: str) -> Planner:
    """The planner of this name. Raises ``OptionError`` with the names there are."""
    if name not in PLANNERS:
        raise OptionError(f"--planner is {name!r}; expected one of {', '.join(PLANNERS)}")
    return PLANNERS[name]


def _whole_layers(gates: torch.Tensor, units: Units) -> torch.Tensor:
    """(B, N) -> (B, N, 2, A): a layer's switches go together."""
    return gates[:, :, None, None].expand(-1, -1, 2, units.num_switches)


def _spread(counts: torch.Tensor, places: int) -> torch.Tensor:
    """(B,) counts -> (B, places) whole numbers that sum to the count, as even as can be, centred."""
    edges = torch.arange(places + 1, device=counts.device)
    filled = (2 * counts[:, None] * edges + places) // (2 * places)
    return filled[:, 1:] - filled[:, :-1]
