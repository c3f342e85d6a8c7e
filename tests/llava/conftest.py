"""What several folders of these tests use."""

import argparse
from types import SimpleNamespace

import pytest

FORMS = {  # of what a script hands to upstream's programs instead of parsed flags
    "class": lambda fields: type("Args", (), fields)(),
    "namespace": lambda fields: SimpleNamespace(**fields),
    "parsed": lambda fields: argparse.Namespace(**fields),
}


@pytest.fixture(params=FORMS)
def arguments_of(request):
    """``arguments_of(fields)``: an object with these attributes, in each form in turn."""
    return FORMS[request.param]
