"""Keeps a core of this machine busy while a benchmark runs, as another program would."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

BUSY = "import os\nparent = os.getppid()\nprint(flush=True)\nwhile os.getppid() == parent:\n    sum(range(1000000))"


@contextlib.contextmanager
def one_core_busy() -> Iterator[None]:
    """Keep one core busy with a second process, from the moment it computes until the block ends."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield
        finally:
            process.kill()
