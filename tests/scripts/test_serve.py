"""scripts/serve.sh as it is run, and the syntax of what is deployed."""

import configparser
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fixtures.marks import slow_except
from fixtures.ports import reserved_ports
from fixtures.servers import wait_until

from llava.serve.hosting import free_ports

WAIT_S = 300
LAST_LINE = "Ctrl-C stops all."


@pytest.fixture
def environment(root, tmp_path) -> dict[str, str]:
    """A virtual environment that looks installed to scripts/venv.sh, with this Python; nothing can be fetched."""
    variables = {**os.environ, "VIRTUAL_ENV": str(tmp_path), "PYTHONPATH": str(root), "PIP_NO_INDEX": "1"}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    variables |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    stamp = "cat pyproject.toml constraints.txt <(echo \"$PWD[serve]\") | cksum | cut -d' ' -f1"
    name = subprocess.run(["bash", "-c", stamp], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / f".ada-llava-{name}").touch()
    return variables


class ServeScript:
    """A running scripts/serve.sh, on free ports where ``environment`` names none.

    ``output``: what it printed until all servers had started.
    """

    def __init__(self, root: Path, environment: dict[str, str], logs: Path, *flags: object) -> None:
        ports = {f"{name}_PORT": "0" for name in ("CONTROLLER", "WORKER", "API", "WEB")}
        self.process = subprocess.Popen(
            ["bash", "scripts/serve.sh", *map(str, flags)],
            cwd=root,
            env={**ports, **environment, "LOG_DIR": str(logs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(WAIT_S, self.kill)
        self._watchdog.start()
        self.output: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip())
            if LAST_LINE in line:
                break

    def addresses(self) -> dict[str, str]:
        """The printed addresses by name."""
        return dict(re.findall(r"^([\w ]+): +(http://[^/\s]+)", "\n".join(self.output), re.MULTILINE))

    def send(self, sign: int) -> None:
        """Send a signal to all processes, as a terminal does, and wait for the end."""
        os.killpg(self.process.pid, sign)
        self.process.wait(WAIT_S)

    def kill(self) -> None:
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.send(signal.SIGTERM)  # the script ends the servers, which do not get its signals


@pytest.fixture
def serve(root, environment, tmp_path, adaptive_checkpoint):
    """scripts/serve.sh with a tiny model."""
    script = ServeScript(
        root, environment, tmp_path / "logs", "--model-path", adaptive_checkpoint, "--model-name", "tiny"
    )
    yield script
    script.kill()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("sign", slow_except([signal.SIGINT, signal.SIGTERM], signal.SIGTERM))
def test_serve_script_starts_all_servers_and_a_signal_stops_them(root, environment, serve, sign) -> None:
    labels = [line.partition(":")[0] for line in serve.output]
    assert labels == ["web demo", "OpenAI API", "controller", "worker", "logs", "try", LAST_LINE], serve.output
    address = serve.addresses()
    assert all(answers(address[name]) for name in ("controller", "worker", "OpenAI API"))
    assert '"title":"LLaVA"' in httpx.get(address["web demo"], trust_env=False).text
    flags = ["--controller-address", address["controller"], "--message", "w5", "--max-new-tokens", "3"]
    asked = subprocess.run(
        [sys.executable, "-m", "llava.serve.test_message", *flags, "--latency-budget", "0.5"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0 and "Models: ['tiny']" in asked.stdout, asked.stderr
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "max_tokens": 3, "temperature": 0}
    url = f"{address['OpenAI API']}/v1/chat/completions"
    reply = httpx.post(url, json=chat, trust_env=False, timeout=WAIT_S).json()
    assert reply["usage"]["completion_tokens"] <= 3, reply
    serve.send(sign)
    assert not any(answers(address[name]) for name in ("controller", "worker", "OpenAI API"))


def test_serve_script_at_every_network_has_its_worker_on_this_machine(
    root, environment, tmp_path, adaptive_checkpoint
) -> None:
    with reserved_ports(1) as [port]:
        given = {**environment, "HOST": "0.0.0.0", "WORKER_PORT": str(port)}
        flags = ["--model-path", adaptive_checkpoint, "--model-name", "tiny"]
        script = ServeScript(root, given, tmp_path / "logs", *flags)
        try:
            assert script.output[-1] == LAST_LINE, script.output
            controller = script.addresses()["controller"]
            assert controller.startswith("http://127.0.0.1:")

            def worker_of(model: str) -> str:
                reply = httpx.post(f"{controller}/get_worker_address", json={"model": model}, trust_env=False)
                return reply.json()["address"]

            wait_until(lambda: worker_of("tiny") == f"http://127.0.0.1:{port}", "the worker registers")
        finally:
            script.kill()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_serve_script_at_every_network_with_any_worker_port_is_refused(root, environment, tmp_path, host) -> None:
    given = {**environment, "HOST": host, "WORKER_PORT": "0", "LOG_DIR": str(tmp_path / "logs")}
    ran = subprocess.run(
        ["bash", "scripts/serve.sh", "--model=shapes"],
        cwd=root,
        env=given,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert ran.returncode == 2 and f"HOST is {host} and WORKER_PORT is 0" in ran.stderr, ran.stderr
    assert not (tmp_path / "logs").exists(), "nothing was started"


def test_serve_script_at_ctrl_c_answers_what_was_accepted(serve) -> None:
    """A terminal sends the signal to all processes of its foreground; a server ends at once at its second one."""
    address, pieces = serve.addresses(), []
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "temperature": 0, "ignore_eos": True}
    with httpx.stream(
        "POST",
        f"{address['OpenAI API']}/v1/chat/completions",
        json={**chat, "stream": True, "max_tokens": 200},
        trust_env=False,
        timeout=WAIT_S,
    ) as reply:
        for line in reply.iter_lines():
            pieces.append(line)
            if len(pieces) == 8:
                stopping = threading.Thread(target=serve.send, args=(signal.SIGINT,))
                stopping.start()
    assert "data: [DONE]" in pieces and '"finish_reason": "length"' in "".join(pieces)
    stopping.join(WAIT_S)
    assert serve.process.returncode == 130


def test_serve_script_reports_the_log_of_a_server_that_ends(root, environment, tmp_path) -> None:
    script = ServeScript(root, environment, tmp_path / "logs", "--model-path", tmp_path / "missing")
    assert script.process.wait(WAIT_S) == 1
    script.kill()
    assert script.output[0].startswith("the worker has ended") and "missing" in script.output[-1]


def test_serve_script_on_taken_ports_stops_before_it_starts_anything(root, environment, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = {"API_PORT": first.getsockname()[1], "WEB_PORT": second.getsockname()[1]}
        given = {"CONTROLLER_PORT": "0", "WORKER_PORT": "0", **{name: str(port) for name, port in ports.items()}}
        ran = subprocess.run(
            ["bash", "scripts/serve.sh", "--model=shapes"],
            cwd=root,
            env={**environment, **given, "LOG_DIR": str(tmp_path / "logs")},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
    assert ran.returncode == 1 and ran.stdout == ""
    assert all(f"{name} {port}" in ran.stderr for name, port in ports.items()) and "CONTROLLER" not in ran.stderr
    assert list((tmp_path / "logs").iterdir()) == []


@pytest.mark.parametrize("name", ["CONTROLLER_PORT", "WORKER_PORT", "API_PORT", "WEB_PORT"])
@pytest.mark.parametrize("value", ["many", "-1", "65536"])
def test_free_ports_port_that_cannot_be_is_named(capsys, name, value) -> None:
    assert free_ports.main(["--host", "127.0.0.1", f"{name}={value}"]) == 2
    assert name in capsys.readouterr().err


def test_free_ports_same_port_twice_is_named(capsys) -> None:
    with reserved_ports(1) as [port]:
        assert free_ports.main(["--host", "127.0.0.1", f"WORKER_PORT={port}", "WEB_PORT=0", f"API_PORT={port}"]) == 2
    assert f"WORKER_PORT and API_PORT are both {port}" in capsys.readouterr().err
    assert free_ports.main(["--host", "127.0.0.1", "WORKER_PORT=0", "WEB_PORT=0"]) == 0, "0 is another one each time"


@pytest.mark.parametrize(("host", "port", "words"), [("no.invalid", 0, "no address"), ("127.0.0.1", 65536, "65535")])
def test_free_ports_that_cannot_be_bound_are_not_called_taken(capsys, host, port, words) -> None:
    assert free_ports.main(["--host", host, f"API_PORT={port}"]) == 2
    said = capsys.readouterr().err
    assert "API_PORT" in said and words in said and "taken" not in said


def test_serve_script_syntax_is_valid(root) -> None:
    subprocess.run(["bash", "-n", root / "scripts" / "serve.sh"], check=True)


@pytest.mark.parametrize("name", ["controller", "worker"])
def test_systemd_units_name_programs_and_flags_that_exist(root, name) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(root / "scripts" / "deploy" / f"ada-llava-{name}.service")
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    module, *flags = unit["Service"]["ExecStart"].split(" -m ")[1].split()
    parse = __import__(module, fromlist=["parse_arguments"]).parse_arguments
    assert parse(flags).host == "127.0.0.1"
