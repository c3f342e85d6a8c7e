"""Clients made for OpenAI's API, unchanged, each from a new environment, against the bundled model's servers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PACKAGES = ("openai", "litellm", "langchain-openai", "aiperf")
PROGRAMS = Path(__file__).parent / "api_clients"
TIMEOUT_S = 1200  # of an installation or a program
pytestmark = [pytest.mark.network, pytest.mark.slow]


def run(*command: object, folder: Path) -> subprocess.CompletedProcess:
    """Run a program that does not see this checkout, nor its environment's packages."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HF_HUB_OFFLINE", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    kept |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment that holds the clients."""
    folder = tmp_path_factory.mktemp("clients")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder).check_returncode()
    python = folder / "venv" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--quiet", *PACKAGES, folder=folder)
    if installed.returncode:
        pytest.skip(f"the clients cannot be installed: {installed.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory) -> Path:
    """A folder in which Node finds OpenAI's package."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(PROGRAMS / "openai_node.mjs", folder)
    installed = run("npm", "install", "--no-audit", "--no-fund", "openai", folder=folder)
    if installed.returncode:
        pytest.skip(f"openai cannot be installed: {installed.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def api(start_program, root) -> SimpleNamespace:
    """The bundled model, served through controller and API: ``.address``, ``.image``."""
    controller = start_program("llava.serve.controller")
    start_program("llava.serve.model_worker", "--controller-address", controller)
    address = start_program("llava.serve.openai_api", "--controller-address", controller)
    return SimpleNamespace(address=address, image=root / "playground" / "shapes" / "demo.png")


def check(ran: subprocess.CompletedProcess) -> dict:
    """What every client has to report of the bundled model's answers about its image."""
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["answer"] == said["streamed"] == "sun"
    assert said["second answer"] and said["tokens with ignore_eos"] == 40
    return said


def test_openai_for_python(python, api, tmp_path) -> None:
    ran = run(python, PROGRAMS / "openai_python.py", f"{api.address}/v1", api.image, folder=tmp_path)
    said = check(ran)
    assert 12 <= said["tokens with min_tokens"] <= 40 and said["drawn alike"]


@pytest.mark.parametrize("program", ["litellm_python.py", "langchain_python.py"])
def test_libraries_on_top_of_it(python, api, tmp_path, program) -> None:
    check(run(python, PROGRAMS / program, f"{api.address}/v1", api.image, folder=tmp_path))


def test_openai_for_node(node_folder, api) -> None:
    check(run("node", "openai_node.mjs", f"{api.address}/v1", api.image, folder=node_folder))


def test_aiperf_profile_gets_the_tokens_that_it_asks_for(python, api, tmp_path, root) -> None:
    """A short run of the load tester, an image in each request; it asks for 16 tokens, whatever the model would say."""
    flags = {
        "--model": "shapes-H",
        "--url": api.address,
        "--endpoint-type": "chat",
        "--request-count": 6,
        "--concurrency": 2,
        "--tokenizer": root / "ada" / "checkpoints" / "shapes-H",
        "--synthetic-input-tokens-mean": 8,
        "--output-tokens-mean": 16,
        "--output-tokens-stddev": 0,
        "--image-width-mean": 64,
        "--image-height-mean": 64,
        "--ui": "none",
        "--artifact-dir": tmp_path / "artifacts",
    }
    words = [word for flag in flags.items() for word in flag]
    words += ["--streaming", "--use-server-token-count"]
    words += ["--extra-inputs", "ignore_eos:true", "--extra-inputs", "min_tokens:16"]
    ran = run(python.parent / "aiperf", "profile", *words, folder=tmp_path)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    figures = json.loads((tmp_path / "artifacts" / "profile_export_aiperf.json").read_text())
    assert figures["request_count"]["avg"] == 6 and not figures.get("error_summary")
    lengths = figures["output_sequence_length"]
    assert lengths["min"] == lengths["max"] == 16
