"""The model worker's flags."""

import pytest

from llava.serve.model_worker import main, parse_arguments


def test_parse_arguments_defaults_are_upstreams_and_plug_ins_add_flags() -> None:
    args = parse_arguments(["--adaptive-budget", "0.5", "--latency-budget", "0.8", "--multi-modal"])
    upstreams = {
        "host": "localhost",
        "port": 21002,
        "controller_address": "http://localhost:21001",
        "model_base": None,
        "model_name": None,
        "stream_interval": 1,
        "no_register": False,
        "load_8bit": False,
        "load_4bit": False,
        "use_flash_attn": False,
    }
    assert {name: getattr(args, name) for name in upstreams} == upstreams
    assert (args.adaptive_budget, str(args.latency_budget)) == (0.5, "0.8")


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-queue-length", "-1"),
        ("--limit-model-concurrency", "0"),
        ("--stream-interval", "0"),
        ("--queue-timeout", "0"),
        ("--max-images", "-1"),
        ("--max-output-tokens", "0"),
        ("--drain-timeout", "nan"),
        ("--registration-token", "a\nb"),
        ("--adaptive-budget", "1.5"),
    ],
)
def test_main_bad_value_is_a_user_error_that_names_the_flag(adaptive_checkpoint, capsys, flags) -> None:
    assert main(["--model-path", str(adaptive_checkpoint), "--device", "cpu", "--port", "0", *flags]) == 2
    message = capsys.readouterr().err
    assert (flags[0] in message or "registration token" in message) and "Traceback" not in message


def test_parse_arguments_malformed_budget_is_a_usage_error_that_names_the_flag(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--latency-budget", "fast"])
    assert "argument --latency-budget: 'fast'" in capsys.readouterr().err.splitlines()[-1]
