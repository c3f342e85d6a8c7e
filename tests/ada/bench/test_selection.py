"""The plain selections that ours is timed against."""

import torch

from ada.bench.selection import layers_one_by_one, switches_one_by_one


def test_one_by_one_selections_spend_the_granted_units() -> None:
    granted = torch.tensor([0, 1, 3])
    logits = torch.randn(3, 4, requires_grad=True)
    gates = layers_one_by_one(logits, granted)
    assert torch.equal(gates.sum(1).long(), granted)
    logits = torch.randn(3, 4, 2, 8, requires_grad=True)
    gates = switches_one_by_one(logits, granted, 4)
    assert torch.equal(gates.sum((2, 3)).sum(1).round().long(), granted * 2 * 4)
    gates.sum().backward()
    assert logits.grad is not None
