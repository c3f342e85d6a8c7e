"""The plain selections that ours is timed against."""

import json

import torch

from ada.bench.__main__ import main
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


def test_program_times_inference_by_rows_and_share_and_training_by_kind(capsys) -> None:
    assert main(["selection", *"--layers 2 --switches 4 --rank 2 --rows 1 3 --rounds 2".split()]) == 0
    shown = capsys.readouterr().out
    figures = json.loads(shown.strip().splitlines()[-1])
    assert [list(shares) for shares in figures["inference"].values()] == [["0.5", "0.75", "0.85"]] * 2
    assert set(figures["training"]) == {"H", "L"}
    assert all(rows["0.5"]["times_faster"] > 0 for rows in figures["inference"].values())
    assert "inference, 3 at once, share 0.75" in shown
