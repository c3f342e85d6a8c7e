"""The README's Python example, run as it stands in its own process."""

from __future__ import annotations

import os
import re
import subprocess
import sys


def test_readme_python_example_runs_as_it_stands(root) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), flags=re.DOTALL)
    env = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([sys.executable, "-c", example], cwd=root, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    full, half = ran.stdout.splitlines()
    assert full.startswith("sun | budget 1,") and half.startswith("sun | budget 0.5, granted 0.775 ")
