"""Several plug-ins' parts in one run."""

from __future__ import annotations

from torch import nn

from llava.train.policy import Policies, TrainingPolicy


class Freezes(TrainingPolicy):
    """Freezes one layer of a model."""

    def __init__(self, index: int) -> None:
        self.index = index

    def freeze(self, model: nn.Module) -> None:
        """Freeze it."""
        model.get_submodule(str(self.index)).requires_grad_(False)


def trainable(model: nn.Module) -> list[bool]:
    return [layer.weight.requires_grad for layer in model]


def test_each_policy_freezes_its_part() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    Policies([Freezes(0), TrainingPolicy(), Freezes(2)]).freeze(model)
    assert trainable(model) == [False, True, False]


def test_without_policies_nothing_is_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    Policies().freeze(model)
    assert trainable(model) == [True]
