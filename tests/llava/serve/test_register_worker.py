"""The program that registers a worker by hand."""

import httpx
import pytest

from llava.serve import register_worker
from llava.serve.controller import Controller, create_app


@pytest.fixture(autouse=True)
def no_token(monkeypatch) -> None:
    monkeypatch.delenv("LLAVA_REGISTRATION_TOKEN", raising=False)


@pytest.fixture
def controller(listen) -> str:
    """Address of a controller that knows no worker, with the token ``secret``."""
    return listen(create_app(Controller(token="secret"))).address


def models_of(controller: str) -> list[str]:
    return httpx.post(f"{controller}/list_models", json={}, trust_env=False).json()["models"]


def test_main_registers_the_worker(controller, served, capsys) -> None:
    flags = ["--controller-address", controller, "--worker-name", served.worker.address]
    assert register_worker.main([*flags, "--registration-token", "secret"]) == 0
    assert capsys.readouterr().out == f"registered {served.worker.address}\n"
    assert models_of(controller) == ["tiny"]


def test_main_wrong_token_is_a_user_error(controller, capsys) -> None:
    flags = ["--controller-address", controller, "--worker-name", "http://localhost:1"]
    assert register_worker.main([*flags, "--registration-token", "wrong"]) == 2
    assert capsys.readouterr().err == (
        "error: the controller answered 403: the registration token is missing or wrong\n"
    )
    assert models_of(controller) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://[::1"])
def test_main_unreachable_controller_is_a_user_error(address, capsys) -> None:
    assert register_worker.main(["--controller-address", address, "--worker-name", "http://localhost:1"]) == 2
    assert f"the controller at '{address}' cannot be reached" in capsys.readouterr().err
