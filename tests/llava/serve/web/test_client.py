"""The demo's client of a controller."""

import pytest

from llava.serve.web.client import ServingError, WebClient


def test_web_client_unreachable_controller_is_named_with_the_flag() -> None:
    client = WebClient("http://127.0.0.1:9/")
    for ask in (client.models, lambda: client.conv_mode("m"), lambda: list(client.answer({}))):
        with pytest.raises(ServingError, match=r"http://127\.0\.0\.1:9 cannot be reached.*--controller-url"):
            ask()
