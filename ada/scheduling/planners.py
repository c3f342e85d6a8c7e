"""Plans from granted units: the learned planner, and three untrained baselines, which also serve plain LLaVA."""

from __future__ import annotations

from typing import Protocol

import torch

from ada.scheduling.selection import Noise, gumbel, select_layers, select_switches
from ada.scheduling.units import Units
from llava.errors import OptionError


class Planner(Protocol):
    """Turns granted units into gates."""

    def __call__(
        self, units: Units, granted: torch.Tensor, logits: torch.Tensor | None, noise: Noise | None = None
    ) -> torch.Tensor:
        """Return gates (B, N, 2, A), heads and neuron groups of every tunable layer, of ``granted`` (B,) units.

        logits: the scheduler's, None where the model has none; noise: in training only.
        """


def learned_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None, noise: Noise | None = None
) -> torch.Tensor:
    """Plan what the scheduler scores best; without one everything, and OptionError for less."""
    if logits is None:
        if bool((granted < units.tunable).any()):
            raise OptionError("this model has no scheduler; train one, or choose --planner even, last or random")
        return even_planner(units, granted)
    if units.kind == "L":
        return _all_switches(select_layers(logits, granted, noise), units)
    return select_switches(logits, granted, units.rank, noise)


def random_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Plan by uniform draws: the noise of training, else torch's global generator (``torch.manual_seed``)."""
    shape = (len(granted), units.num_tunable_layers, *(() if units.kind == "L" else (2, units.num_switches)))
    return learned_planner(units, granted, (noise or gumbel(device=granted.device))(shape))


def even_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Spread units evenly over the tunable layers, and heads and neuron groups evenly within a layer."""
    layers = units.num_tunable_layers
    units_of_layer = _spread(granted, layers)  # (B, N)
    if units.kind == "L":
        return _all_switches(units_of_layer.float(), units)
    switches = _spread((units_of_layer * units.rank).flatten(), units.num_switches)
    return switches.view(len(granted), layers, 1, -1).expand(-1, -1, 2, -1).float()


def last_planner(
    units: Units, granted: torch.Tensor, logits: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Drop the last layers: units fill the tunable layers from the first one on."""
    before = torch.arange(units.num_tunable_layers, device=granted.device) * units.per_layer
    units_of_layer = (granted[:, None] - before).clamp(0, units.per_layer)  # (B, N)
    if units.kind == "L":
        return _all_switches(units_of_layer.float(), units)
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
    """Return the planner of this name. Raises OptionError that lists the names."""
    if name not in PLANNERS:
        raise OptionError(f"--planner is {name!r}; expected one of {', '.join(PLANNERS)}")
    return PLANNERS[name]


def planner_name(config: object, given: str | None) -> str:
    """Return the name of a call's planner: the given one, else the one that the config names, else ``learned``."""
    return given or getattr(config, "planner", None) or "learned"


def _all_switches(gates: torch.Tensor, units: Units) -> torch.Tensor:
    """(B, N) -> (B, N, 2, A): all switches of a layer are on, or none."""
    return gates[:, :, None, None].expand(-1, -1, 2, units.num_switches)


def _spread(counts: torch.Tensor, bins: int) -> torch.Tensor:
    """(B,) counts -> (B, bins) integers that sum to the count, as even as possible, centred."""
    edges = torch.arange(bins + 1, device=counts.device)
    filled = (2 * counts[:, None] * edges + bins) // (2 * bins)
    return filled[:, 1:] - filled[:, :-1]
