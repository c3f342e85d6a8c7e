"""A tiny stack, as the decode benchmark's subject."""

import pytest
import torch

from ada.bench.decode.gpu import TOY_SIZES
from ada.bench.decode.subject import STACK, Setting, Subject, stack

SETTINGS = (Setting(1.0, 12, 1), Setting(0.5, 12, 1))


@pytest.fixture(scope="module")
def make_subject():
    """``make_subject(kind)``: four tiny layers in float32."""
    make = stack(4, torch.device("cpu"), torch.float32, TOY_SIZES)
    return lambda kind, steps=3: Subject(STACK, kind, make(kind), SETTINGS, steps)
