"""Holds the plans of all slots on the device, as the kernels read them: changed by one small copy, without a wait."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ada.scheduling.execution_plan import ExecutionPlan

OFF = -1
"""What ``LayerSwitches.kept_at`` says of a head that is off."""


@dataclass(frozen=True, eq=False)
class LayerSwitches:
    """What the slots' plans say of one layer: int32 tensors, views of the plan's one buffer on the device.

    heads, groups: (1 + A,), how many key-value heads, or neuron groups, any slot has on, then which, ascending.
    kept_at: (slots, A), a head's index among those that the slot keeps, where the slot's cache holds it; -1 where it is
    off. on: (slots, A), 1 where the slot has the neuron group on.
    """

    heads: torch.Tensor
    groups: torch.Tensor
    kept_at: torch.Tensor
    on: torch.Tensor


class DevicePlan:
    """The plans of ``num_slots`` slots for layers of ``num_switches`` heads and as many neuron groups.

    ``set``, ``clear`` and ``move`` change the host's copy; ``upload`` brings all changes to the device. The tensors
    stay where they are, so that a captured graph reads the new plan. A slot without a plan runs nothing.
    """

    def __init__(self, num_layers: int, num_slots: int, num_switches: int, device: torch.device) -> None:
        self._gates = torch.zeros(num_slots, num_layers, 2, num_switches, dtype=torch.bool)  # on the host
        self._used = torch.zeros(num_slots, dtype=torch.bool)
        self._buffer = _packed(self._gates, self._used).to(device)
        self._changed = False
        lists, per_slot = num_layers * 2 * (1 + num_switches), 2 * num_layers * num_slots * num_switches
        parts = torch.split(self._buffer, [lists, per_slot, num_slots])
        listed = parts[0].view(num_layers, 2, 1 + num_switches)
        slots = parts[1].view(num_layers, 2, num_slots, num_switches)
        self.layers = [LayerSwitches(*one, *other) for one, other in zip(listed, slots, strict=True)]
        self.used = parts[2]
        """(slots,) int32 on the device: 1 where a slot has a plan."""

    def set(self, slot: int, plan: ExecutionPlan) -> None:
        """Give a slot its plan. Raises ValueError where the plan is for a decoder of another size."""
        _, num_layers, _, num_switches = self._gates.shape
        if (len(plan.layers), plan.num_switches) != (num_layers, num_switches):
            raise ValueError(
                f"the plan is for {len(plan.layers)} layers of {plan.num_switches} switches; "
                f"expected one for {num_layers} layers of {num_switches}, as the decoder has"
            )
        self._gates[slot] = plan.gates().bool()
        self._used[slot] = self._changed = True

    def clear(self, slot: int) -> None:
        """Take a slot's plan away: nothing runs for it."""
        self._gates[slot] = False
        self._used[slot] = False
        self._changed = True

    def move(self, source: int, target: int) -> None:
        """Give ``target`` the plan of ``source``, which has none from then on."""
        self._gates[target], self._used[target] = self._gates[source], self._used[source]
        self.clear(source)

    def used_slots(self) -> list[int]:
        """Return the slots that have a plan, ascending."""
        slots: list[int] = self._used.nonzero().flatten().tolist()
        return slots

    def upload(self) -> None:
        """Copy what has changed to the device, in the order of its stream; the host does not wait."""
        if not self._changed:
            return
        packed = _packed(self._gates, self._used)
        if self._buffer.is_cuda:
            packed = packed.pin_memory()  # freed memory of this kind is not used again before the copy has ended
        self._buffer.copy_(packed, non_blocking=True)
        self._changed = False

    def pause(self) -> None:
        """Have nothing run on the device until the next ``upload``, which brings all plans back."""
        self._buffer.zero_()
        self._changed = True


def _packed(gates: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Return lists and rows' own gates of all layers, as one int32 vector, from gates (slots, L, 2, A)."""
    any_slot = gates.any(dim=0)  # (L, 2, A)
    counts = any_slot.sum(dim=-1, keepdim=True)
    order = (~any_slot).byte().argsort(dim=-1, stable=True)  # those that are on come first, ascending
    lists = torch.cat([counts, order], dim=-1)
    heads, groups = gates.transpose(0, 1).unbind(dim=2)  # (L, slots, A) each
    kept_at = torch.where(heads, heads.cumsum(dim=-1) - 1, OFF)
    per_slot = torch.stack([kept_at, groups], dim=1)
    return torch.cat([part.flatten().int() for part in (lists, per_slot, used)])
