"""Writes constraints.txt anew: the version of every package that any extra installs, what they need included.

python scripts/lock.py                          # keep today's versions where they still fit
python scripts/lock.py --upgrade                # take the newest that pyproject.toml allows
python scripts/lock.py --upgrade-package ruff   # only this one
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = "dev,train,eval,serve,smol,quant,lmms,easy-vqa,wandb,ray"
OLDEST_PYTHON = (3, 10)  # of requires-python
# torch names its own CUDA packages exactly, and torchvision its torch: a CPU's install must not be asked for others.
UNPINNED = re.compile(r"nvidia-.*|cuda-.*|triton|torchvision|ada-llava")
HEADER = """\
# The version of every package that the extras install, for `pip install -c constraints.txt`.
# Made by `python scripts/lock.py` on Python {python}; do not edit. A package that needs a newer Python than the oldest
# supported one is pinned from that version on.
"""


def resolve(constraints: Path) -> list[dict[str, Any]]:
    """Return pip's report of a fresh install of all extras: one entry a package. Nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "-c", str(constraints), f"{ROOT}[{EXTRAS}]"]
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            raise SystemExit("error: pip finds no set of versions; its message is above")
        packages: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return packages


def pin(metadata: dict[str, Any]) -> str | None:
    """Return a package's line, ``name==version`` with a marker where it needs a newer Python; None: not pinned."""
    name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
    if UNPINNED.fullmatch(name):
        return None
    version = metadata["version"].partition("+")[0]  # without a build such as +cpu
    needed = re.search(r">=?\s*3\.(\d+)", metadata.get("requires_python") or "")
    oldest = (3, int(needed[1])) if needed else OLDEST_PYTHON
    marker = f' ; python_version >= "3.{oldest[1]}"' if oldest > OLDEST_PYTHON else ""
    return f"{name}=={version}{marker}"


def kept_versions(text: str, upgrade: bool, packages: list[str]) -> str:
    """Return the lines of today's constraints that hold in the next ones."""
    lines = [] if upgrade else text.splitlines()
    return "\n".join(line for line in lines if line.partition("==")[0] not in packages) + "\n"


def main() -> None:
    """Resolve, and write the constraints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="forget today's versions")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME", help="forget NAME's version")
    args = parser.parse_args()
    text = CONSTRAINTS.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "constraints.txt"
        kept.write_text(kept_versions(text, args.upgrade, args.upgrade_package), encoding="utf-8")
        pins = sorted(filter(None, (pin(package["metadata"]) for package in resolve(kept))))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    CONSTRAINTS.write_text(HEADER.format(python=python) + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"{CONSTRAINTS.name}: {len(pins)} packages")


if __name__ == "__main__":
    main()
