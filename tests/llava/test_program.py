"""What every program does around its work: exit codes, user errors, and which messages of libraries it hides."""

import logging

import pytest

from llava import program
from llava.errors import OptionError
from llava.program import run_program


def test_run_program_user_error_prints_message_and_returns_2(capsys) -> None:
    def work() -> None:
        raise OptionError("--x is 1; expected 2")

    assert run_program(work) == 2
    assert capsys.readouterr().err == "error: --x is 1; expected 2\n"


@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize("name", ["", "missing/file", "file/below"])
def test_run_program_path_that_cannot_be_used_prints_it_and_returns_2(tmp_path, capsys, mode, name) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / name
    assert run_program(lambda: path.open(mode).close()) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot use '{path}': ")


def test_run_program_other_system_errors_are_raised() -> None:
    def work() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        run_program(work)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_run_program_returns_the_exit_code_of_its_work(returned, code) -> None:
    assert run_program(lambda: returned) == code


def test_hide_unneeded_messages_keeps_other_messages_of_the_same_logger(caplog, monkeypatch) -> None:
    monkeypatch.setattr(program, "UNNEEDED_MESSAGES", {"a.library": ("Failed to load",)})
    program.hide_unneeded_messages()
    logging.getLogger("a.library").warning("Failed to load %s", "kernels")
    logging.getLogger("a.library").warning("something else")
    assert caplog.messages == ["something else"]
