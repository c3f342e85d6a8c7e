"""scripts/serve.sh as it is run, and the syntax of what is deployed."""

import configparser
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

WAIT = 300  # seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def environment(root, tmp_path) -> dict[str, str]:
    """A virtual environment that looks installed to scripts/venv.sh, with this Python; nothing can be fetched."""
    shown = {**os.environ, "VIRTUAL_ENV": str(tmp_path), "PYTHONPATH": str(root), "PIP_NO_INDEX": "1"}
    shown["PATH"] = f"{Path(sys.executable).parent}:{shown['PATH']}"
    shown |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    stamp = "cat pyproject.toml constraints.txt <(echo \"$PWD[serve]\") | cksum | cut -d' ' -f1"
    name = subprocess.run(["bash", "-c", stamp], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / f".ada-llava-{name}").touch()
    return shown


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_starts_all_and_stops_all(root, environment, tmp_path, adaptive_checkpoint, sign) -> None:
    ports = {f"{name}_PORT": str(free_port()) for name in ("CONTROLLER", "WORKER", "API", "WEB")}
    log = tmp_path / "log"
    command = ["bash", "scripts/serve.sh", "--model-path", str(adaptive_checkpoint), "--model-name", "tiny"]
    with open(log, "wb") as output:
        script = subprocess.Popen(
            command, cwd=root, env={**environment, **ports}, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + WAIT
    try:
        while "Ctrl-C stops all" not in log.read_text():
            assert script.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        addresses = [f"http://127.0.0.1:{port}" for port in ports.values()]
        assert all(answers(address) for address in addresses[:3])
        assert '"title":"LLaVA"' in httpx.get(addresses[3], trust_env=False).text
        flags = ["--controller-address", addresses[0], "--message", "w5", "--max-new-tokens", "3"]
        said = subprocess.run(
            [sys.executable, "-m", "llava.serve.test_message", *flags, "--latency-budget", "0.5"],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0 and "Models: ['tiny']" in said.stdout, said.stderr
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "max_tokens": 3, "temperature": 0}
        told = httpx.post(f"{addresses[2]}/v1/chat/completions", json=chat, trust_env=False, timeout=WAIT).json()
        assert told["usage"]["completion_tokens"] <= 3, told
        os.killpg(script.pid, sign)  # as a terminal does
        script.wait(WAIT)
        assert not any(answers(address) for address in addresses)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ["serve.sh"])
def test_shell_syntax(root, name) -> None:
    subprocess.run(["bash", "-n", root / "scripts" / name], check=True)


@pytest.mark.parametrize("name", ["controller", "worker"])
def test_units_name_what_exists(root, name) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(root / "scripts" / "deploy" / f"ada-llava-{name}.service")
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    module, *flags = unit["Service"]["ExecStart"].split(" -m ")[1].split()
    parse = __import__(module, fromlist=["parse_arguments"]).parse_arguments
    assert parse(flags).host == "127.0.0.1"
