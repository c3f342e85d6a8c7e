"""Reads what the servers' processes hold and what their counters say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from llava.errors import OptionError

LAST_LABELS = ("status", "code", "finished_reason")  # of counters of requests
FIELDS = {"VmRSS": "memory_mib", "Threads": "threads"}


def held(processes: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the memory in MiB, the threads and the open files of each process. Raises OptionError outside of Linux."""
    return {name: _held(Path("/proc") / str(pid)) for name, pid in processes.items()}


def _held(folder: Path) -> dict[str, float]:
    try:
        text, files = (folder / "status").read_text(), len(list((folder / "fd").iterdir()))
    except OSError as error:
        raise OptionError(f"what a process holds cannot be read ({error}); this benchmark needs Linux") from error
    found = {FIELDS[name]: float(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", text, re.M) if name in FIELDS}
    return {**found, "memory_mib": round(found["memory_mib"] / 1024, 1), "files": float(files)}


def counted(address: str, name: str, **labels: str) -> Counter[str]:
    """Return a server's counter by its last label (status, code or reason), where it has these other labels."""
    counts: Counter[str] = Counter()
    text = httpx.get(f"{address}/metrics", trust_env=False).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            fits = all(sample.labels.get(label) == value for label, value in labels.items())
            if sample.name.endswith(name) and fits:
                value = next(sample.labels[label] for label in LAST_LABELS if label in sample.labels)
                counts[value] += int(sample.value)
    return counts
