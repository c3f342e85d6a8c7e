"""The header that asks for milliseconds."""

import pytest

from ada.serve.slo_header import fields_of_headers
from llava.errors import OptionError


@pytest.mark.parametrize(
    ("text", "budget"), [("850", "850ms"), ("12.5", "12.5ms"), ("1e3", "1000ms"), (" 7 ", "7ms"), ("0.001", "0.001ms")]
)
def test_milliseconds(text, budget) -> None:
    assert fields_of_headers({"x-slo-ttft-ms": text}) == {"latency_budget": budget}


def test_no_header_asks_for_nothing() -> None:
    assert fields_of_headers({"accept": "*/*"}) == {}


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "inf", "1e300", "1e-9", "fast", "850ms", "1,5", "0x10"])
def test_no_milliseconds(text) -> None:
    with pytest.raises(OptionError, match="x-slo-ttft-ms"):
        fields_of_headers({"x-slo-ttft-ms": text})
