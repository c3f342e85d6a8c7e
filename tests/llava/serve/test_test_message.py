"""The program that sends one message: its request, plug-ins' fields in it, and its messages for users."""

import argparse

import httpx
import pytest
from pydantic import Field

from llava.hookspecs import hookimpl
from llava.plugins import plugin_manager
from llava.serve import test_message as program


class MoodPlugin:
    """A plug-in with a flag for this program and a request field of the same name."""

    @hookimpl
    def add_arguments(self, parser: argparse.ArgumentParser, program: str) -> None:
        if program == "test_message":
            parser.add_argument("--mood")

    @hookimpl
    def request_fields(self):
        return {"mood": (str | None, Field(default=None))}


@pytest.fixture
def mood_plugin():
    plugin = MoodPlugin()
    plugin_manager().register(plugin)
    yield
    plugin_manager().unregister(plugin)


def test_request_body_has_upstreams_fields() -> None:
    args = program.parse_arguments(["--message", "Hello", "--max-new-tokens", "5"])
    body = program.request_body(args)
    assert body["prompt"].endswith("USER: Hello ASSISTANT:")
    del body["prompt"]
    assert body == {"temperature": 0.7, "max_new_tokens": 5, "stop": "</s>"}


def test_request_body_has_the_field_of_a_plugins_flag(mood_plugin) -> None:
    assert program.request_body(program.parse_arguments(["--mood", "calm"]))["mood"] == "calm"


def test_request_body_leaves_out_a_plugins_flag_that_is_not_given(mood_plugin) -> None:
    assert "mood" not in program.request_body(program.parse_arguments([]))


def test_main_prints_the_answer(served, capsys) -> None:
    flags = ["--controller-address", served.controller.address, "--message", "w5 w6", "--max-new-tokens", "4"]
    assert program.main(flags) == 0
    printed = capsys.readouterr().out
    assert "Models: ['tiny']" in printed and f"worker_addr: {served.worker.address}" in printed
    assert printed.rstrip("\n").rpartition("\n")[2].strip()


def test_find_worker_asks_a_controller_that_lets_other_machines_refresh_nothing() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        replies = {
            "/refresh_all_workers": httpx.Response(403, json={"text": "forbidden", "error_code": 1}),
            "/list_models": httpx.Response(200, json={"models": ["tiny"]}),
            "/get_worker_address": httpx.Response(200, json={"address": "http://worker"}),
        }
        return replies[request.url.path]

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert program.find_worker(client, program.parse_arguments([])) == ("http://worker", "tiny")


def test_main_worker_address_needs_no_controller(served, capsys) -> None:
    assert program.main(["--worker-address", served.worker.address, "--max-new-tokens", "2"]) == 0
    assert "Models:" not in capsys.readouterr().out


def test_main_unknown_model_is_a_user_error(served, capsys) -> None:
    assert program.main(["--controller-address", served.controller.address, "--model-name", "other"]) == 2
    assert "--model-name is 'other', which no worker serves; there are: tiny" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "not an address"])
def test_main_unreachable_controller_is_a_user_error(address, capsys) -> None:
    assert program.main(["--controller-address", address]) == 2
    assert capsys.readouterr().err.startswith("error: ")
