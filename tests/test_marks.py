"""Tests are marked ``integration`` by what they and their fixtures call.

Those below that name a program are marked as well, though they never run it.
"""

import subprocess
import sys

import httpx
import uvicorn
from fixtures.marks import starts_something

from llava.model.builder import load_pretrained_model
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train
from playground.easy_vqa import convert


def _run():
    subprocess.run([sys.executable])


class _Server:
    def start(self):
        uvicorn.Server(None)


def test_function_that_starts_a_process_is_found() -> None:
    assert starts_something(_run)
    assert starts_something(lambda: _run())
    assert starts_something(lambda: [_run() for _ in range(3)])


def test_server_in_a_class_is_found() -> None:
    assert starts_something(lambda: _Server().start())


def test_servers_app_is_found() -> None:
    assert starts_something(lambda app: httpx.ASGITransport(app))


def test_training_run_is_found() -> None:
    assert starts_something(lambda: train())
    assert starts_something(lambda: LLaVATrainer().train())


def test_loading_of_a_checkpoint_is_found() -> None:
    assert starts_something(lambda: load_pretrained_model("folder", None, "llava"))


def test_recorded_models_are_integration(request, golden) -> None:
    assert request.node.get_closest_marker("integration")


def test_program_in_this_process_is_found() -> None:
    assert starts_something(lambda: convert.main(["--help"]))
    assert not starts_something(lambda: convert.convert)


def test_function_that_starts_nothing_is_not_found() -> None:
    def work():
        return [sys.version, sorted([3, 1])]

    assert not starts_something(work)
    assert not starts_something(lambda model: model.train())


def test_functions_that_name_each_other_end() -> None:
    assert not starts_something(_even)


def _even(number):
    return number == 0 or _odd(number - 1)


def _odd(number):
    return number != 0 and _even(number - 1)
