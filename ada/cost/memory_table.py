"""Tabulates what a model takes of a device's memory, by how its weights are stored: ``--memory``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ada.cost.footprint import STORAGES, Footprint, Parameters
from ada.cost.hardware import Hardware
from ada.cost.sizes import Sizes
from ada.engine.kv_slots import STEP
from ada.memory.gigabytes import GB
from ada.memory.narrow_limit import FLAG

PARTS = {"narrow_layers": "narrow layers (limit)", "kv_cache": "KV cache", "activations": "activations of a prefill"}


def memory_report(
    sizes: Sizes, hardware: Hardware, prompt_tokens: int, gen_tokens: int, rows: int, limit: int | None = None
) -> dict[str, Any]:
    """Return bytes by storage of the weights and by part, JSON-ready.

    prompt_tokens: that enter the decoder, of each of ``rows`` sequences, which then get ``gen_tokens``. limit: of
    narrow layers, by default that which a load on this device takes.
    """
    parameters, storages = Parameters.of(sizes), {}
    capacity = STEP * -(-(prompt_tokens + gen_tokens) // STEP)
    for name, storage in STORAGES.items():
        found = Footprint.of(sizes, storage, parameters)
        narrow = found.narrow_bytes(int(hardware.memory)) if limit is None or not storage.cuttable else limit
        parts = {
            "narrow_layers": narrow,
            "kv_cache": rows * capacity * found.kv_bytes,
            "activations": rows * prompt_tokens * found.activation_bytes,
        }
        total = found.weight_bytes + sum(parts.values())
        storages[name] = {
            "weights": found.weights,
            **parts,
            "kv_cache_of_1000_positions": 1000 * found.kv_bytes,
            "total": total,
            "fits_in_memory": total <= hardware.memory,
        }
    device = {"hardware": hardware.name, "source": hardware.source, "memory": hardware.memory}
    return {**device, "rows": rows, "by_storage": storages}


def show_memory(report: Mapping[str, Any]) -> None:
    """Print a report as a table in GB."""
    storages: Mapping[str, Any] = report["by_storage"]
    table = Table(
        title=f"GB of {report['model']}, {report['rows']} at a time with {report['prompt_tokens']} positions of prompt "
        f"and {report['gen_tokens']} of answer"
    )
    table.add_column("weights stored in")
    for name in storages:
        table.add_column(name, justify="right")
    for part in next(iter(storages.values()))["weights"]:
        sizes = [one["weights"][part] for one in storages.values()]
        if any(sizes):
            _add(table, part.replace("_", " "), sizes)
    table.add_section()
    for part, label in PARTS.items():
        _add(table, label, [one[part] for one in storages.values()])
    table.add_section()
    _add(table, "all", [one["total"] for one in storages.values()])
    fits = ["yes" if one["fits_in_memory"] else "no" for one in storages.values()]
    table.add_row(f"fits on {report['hardware']}, {report['memory'] / GB:g} GB", *fits)
    of_1000 = [one["kv_cache_of_1000_positions"] for one in storages.values()]
    _add(table, "KV cache of a row and 1,000 positions", of_1000)
    console = Console(width=100)
    console.print(table)
    console.print(f"{FLAG} sets what narrow layers may take; weights of 4 bits cannot be cut")


def _add(table: Table, label: str, sizes: list[int]) -> None:
    table.add_row(label, *(f"{size / GB:,.2f}" if size >= GB / 10 else f"{size / GB:.2g}" for size in sizes))
