"""The devices, and their names in any spelling."""

import json

from ada.cost.__main__ import main
from ada.cost.hardware import HARDWARE, hardware_named


def test_hardware_named_takes_any_spelling():
    assert hardware_named("nvidia_A6000").name == "A6000" == hardware_named("RTX A6000").name
    for name, row in {"GeForce RTX 3090": "RTX-3090", "a100": "A100-80G", "jetson orin": "Jetson-AGX-Orin"}.items():
        assert hardware_named(name).name == row
    assert all(row.source and row.bandwidth < row.flops for row in HARDWARE.values())


def test_hardware_list_prints_every_device(capsys):
    assert main(["--hardware", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in HARDWARE)
    assert main(["--hardware", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    wanted = "V100 T4 A10 A100-40G A100-80G H100 L4 L40S A6000 RTX-3090 RTX-4090 Jetson-AGX-Orin M1 Core-i9-13900K"
    assert set(wanted.split()) <= {row["name"] for row in rows} and all(row["source"] for row in rows)
