"""The command line of all benchmarks."""

import pytest

from ada.bench.__main__ import main, make_parser


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ([], "decode.command"),
        (["decode"], "decode.command"),
        (["gpu"], "decode.gpu"),
        (["prefill-decode"], "prefill_decode"),
        (["adherence"], "adherence"),
        (["batch"], "batching"),
        (["quantized"], "quantized"),
        (["quantised"], "quantized"),
        (["selection"], "selection"),
        (["load"], "load.command"),
        (["hostile"], "hostile.command"),
        (["deadline"], "deadline.command"),
    ],
)
def test_command_runs_its_module(command, module) -> None:
    assert make_parser().parse_args(command).run.__module__ == f"ada.bench.{module}"


def test_flags_before_no_command_are_those_of_decode() -> None:
    args = make_parser().parse_args(["--layers", "8", "--budgets", "0.5", "--rounds", "2", "--models", "stack"])
    assert (args.layers, args.budgets, args.rounds, args.models) == (8, [0.5], 2, ["stack"])


def test_defaults_of_a_command_are_its_own() -> None:
    assert make_parser().parse_args(["batch"]).rounds == 5 != make_parser().parse_args([]).rounds


@pytest.mark.parametrize(
    "command",
    ["decode", "gpu", "prefill-decode", "adherence", "batch", "quantized", "selection", "load", "hostile", "deadline"],
)
def test_help_of_a_command_names_the_program(command, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m ada.bench {command} ")


@pytest.mark.parametrize(
    "line",
    [
        "decode --steps 1",
        "gpu --steps 1",
        "batch --rows 0",
        "quantized --budgets 1",
        "selection --rank 5",
        "load --requests 0",
    ],
)
def test_bad_value_is_a_user_error(line, capsys) -> None:
    command, flag, value = line.split()
    assert main([command, flag, value]) == 2
    assert flag in capsys.readouterr().err
