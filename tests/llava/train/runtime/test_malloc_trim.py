"""Freed memory is returned to the system during a run."""

import ctypes
import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, types
from llava.train.runtime.malloc_trim import INTERVAL_STEPS, MallocTrimCallback

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

blocks = [libc.malloc(1 << 20) for _ in range(200)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[:-1]:  # the last one stays, so the heap's end stays
    libc.free(block)
callback, held = MallocTrimCallback(), resident()
callback.on_step_end(None, types.SimpleNamespace(global_step=INTERVAL_STEPS + 1), None)
assert resident() > held - 20, "not at every step"
callback.on_step_end(None, types.SimpleNamespace(global_step=2 * INTERVAL_STEPS), None)
assert resident() < held - 150, (held, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_returned_at_the_interval(root) -> None:
    env = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "68719476736", "PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=env, cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
