"""The package's README: its example runs as it stands."""

import re
import subprocess
import sys


def test_readme_example_prints_an_answer(root):
    page = (root / "llava" / "model" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
