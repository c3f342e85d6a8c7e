"""Holds the plans of all slots on the device, as the kernels read them: changed by one small copy, without a wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ada.scheduling.execution_plan import ExecutionPlan

OFF = -1
"""What ``LayerSwitches.kept_at`` says of a head that is off."""


@dataclass(frozen=True, eq=False)
class LayerSwitches:
    """What the slots' plans say of one layer: int32 tensors, views of the plan's one buffer on the device.

    heads, groups: (1 + A,), how many key-value heads, or neuron groups, any slot has on, then which, ascending.
    kept_at: (slots, A), the index at which a slot holds a head's keys and values, -1 where the head is off. on: (slots,
    A), 1 where the slot has the neuron group on.
    """

    heads: torch.Tensor
    groups: torch.Tensor
    kept_at: torch.Tensor
    on: torch.Tensor


class DevicePlan:
    """The plans of ``num_slots`` slots for layers of ``num_switches`` heads and as many neuron groups.

    ``set`` and ``clear`` change the host's copy; ``upload`` brings all changes to the device. The tensors
    stay where they are, so that a captured graph reads the new plan. A slot without a plan runs nothing.
    """

    def __init__(self, num_layers: int, num_slots: int, num_switches: int, device: torch.device) -> None:
        # On the host: (slots, L, A) each, and (slots,).
        self._kept_at = torch.full((num_slots, num_layers, num_switches), OFF, dtype=torch.int32)
        self._on = torch.zeros(num_slots, num_layers, num_switches, dtype=torch.int32)
        self._used = torch.zeros(num_slots, dtype=torch.int32)
        self._buffer = self._packed().to(device)
        self._changed = False
        lists, per_slot = num_layers * 2 * (1 + num_switches), 2 * num_layers * num_slots * num_switches
        parts = torch.split(self._buffer, [lists, per_slot, num_slots])
        listed = parts[0].view(num_layers, 2, 1 + num_switches)
        slots = parts[1].view(num_layers, 2, num_slots, num_switches)
        self.layers = [LayerSwitches(*one, *other) for one, other in zip(listed, slots, strict=True)]
        self.used = parts[2]
        """(slots,) int32 on the device: 1 where a slot has a plan."""

    def set(self, slot: int, plan: ExecutionPlan, held: Sequence[Sequence[int]] | None = None) -> None:
        """Give a slot its plan. Raises ValueError where the plan is for a decoder of another size.

        held: the heads that the slot holds of each layer, in their order there; by default those that the plan keeps.
        """
        _, num_layers, num_switches = self._on.shape
        if (len(plan.layers), plan.num_switches) != (num_layers, num_switches):
            raise ValueError(
                f"the plan is for {len(plan.layers)} layers of {plan.num_switches} switches; "
                f"expected one for {num_layers} layers of {num_switches}, as the decoder has"
            )
        heads, groups = plan.gates().unbind(1)  # (L, A) each
        self._on[slot] = groups
        self._kept_at[slot] = torch.where(heads > 0, heads.cumsum(dim=1) - 1, OFF)
        for layer, (own, kept) in enumerate(zip(held or (), plan.layers, strict=held is not None)):
            if tuple(own) != kept.heads:
                self._kept_at[slot, layer, list(kept.heads)] = _indices(own, kept.heads)
        self._used[slot] = 1
        self._changed = True

    def clear(self, slot: int) -> None:
        """Take a slot's plan away: nothing runs for it."""
        self._kept_at[slot] = OFF
        self._on[slot] = self._used[slot] = 0
        self._changed = True

    def upload(self) -> None:
        """Copy what has changed to the device, in the order of its stream; the host does not wait."""
        if not self._changed:
            return
        packed = self._packed()
        if self._buffer.is_cuda:
            packed = packed.pin_memory()  # freed memory of this kind is not used again before the copy has ended
        self._buffer.copy_(packed, non_blocking=True)
        self._changed = False

    def pause(self) -> None:
        """Have nothing run on the device until the next ``upload``, which brings all plans back."""
        self._buffer.zero_()
        self._changed = True

    def _packed(self) -> torch.Tensor:
        """All layers' lists, then each slot's switches, then which slots are used: one int32 vector."""
        per_slot = torch.stack([self._kept_at, self._on]).permute(2, 0, 1, 3)  # (L, 2, slots, A)
        any_slot = torch.stack([self._kept_at != OFF, self._on != 0], dim=2).any(dim=0)  # (L, 2, A)
        order = (~any_slot).byte().argsort(dim=-1, stable=True)  # what is on comes first, ascending
        lists = torch.cat([any_slot.sum(dim=-1, keepdim=True), order], dim=-1)
        return torch.cat([part.flatten().int() for part in (lists, per_slot, self._used)])


def _indices(held: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
    """Where the kept heads are among those that a slot holds."""
    where = {head: index for index, head in enumerate(held)}
    return torch.tensor([where[head] for head in kept], dtype=torch.int32)
