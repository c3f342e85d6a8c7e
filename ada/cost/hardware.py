"""Lists devices for roofline estimates, with the figures that their makers state.

No device reaches both its bandwidth and its arithmetic at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import OptionError


@dataclass(frozen=True)
class Hardware:
    """One device.

    bandwidth: bytes a second. flops: dense FLOPs a second on 16-bit numbers, accumulated in 32 bits where the maker
    states that. memory: bytes. source: where the figures are published.
    """

    name: str
    bandwidth: float
    flops: float
    memory: float
    source: str


_ROWS = (
    Hardware("V100", 900e9, 112e12, 32e9, "NVIDIA V100 data sheet, PCIe"),
    Hardware("T4", 320e9, 65e12, 16e9, "NVIDIA T4 data sheet"),
    Hardware("A10", 600e9, 125e12, 24e9, "NVIDIA A10 data sheet"),
    Hardware("A100-40G", 1555e9, 312e12, 40e9, "NVIDIA A100 data sheet, 40 GB"),
    Hardware("A100-80G", 2039e9, 312e12, 80e9, "NVIDIA A100 data sheet, SXM 80 GB"),
    Hardware("H100", 3350e9, 989.5e12, 80e9, "NVIDIA H100 data sheet, SXM, half of the sparse figure"),
    Hardware("H100-PCIe", 2000e9, 756.5e12, 80e9, "NVIDIA H100 data sheet, PCIe, half of the sparse figure"),
    Hardware("L4", 300e9, 121e12, 24e9, "NVIDIA L4 data sheet, half of the sparse figure"),
    Hardware("L40S", 864e9, 362e12, 48e9, "NVIDIA L40S data sheet"),
    Hardware("A6000", 768e9, 154.8e12, 48e9, "NVIDIA RTX A6000 data sheet, half of the sparse figure"),
    Hardware("RTX-3090", 936e9, 71e12, 24e9, "NVIDIA GA102 white paper, FP16 with FP32 accumulate"),
    Hardware("RTX-4090", 1008e9, 165.2e12, 24e9, "NVIDIA Ada white paper, FP16 with FP32 accumulate"),
    Hardware("Jetson-AGX-Orin", 204.8e9, 42.5e12, 64e9, "NVIDIA Jetson AGX Orin brief: a quarter of 170 TOPS"),
    Hardware("M1", 68.25e9, 2.6e12, 16e9, "Apple: M1, 2.6 teraflops, LPDDR4X-4266"),
    Hardware("M2", 100e9, 3.6e12, 24e9, "Apple: M2, 3.6 teraflops, 100 GB/s"),
    Hardware("M1-Max", 400e9, 10.4e12, 64e9, "Apple: M1 Max, 10.4 teraflops, 400 GB/s"),
    Hardware("M2-Ultra", 800e9, 27.2e12, 192e9, "Apple: M2 Ultra, 27.2 teraflops, 800 GB/s"),
    Hardware("Core-i9-13900K", 89.6e9, 1.38e12, 128e9, "Intel ARK: DDR5-5600 x 2; 8 cores x 32 FP32 x 5.4 GHz"),
    Hardware("Xeon-8480+", 307.2e9, 114.7e12, 512e9, "Intel ARK: DDR5-4800 x 8; AMX, 56 cores x 1024 BF16 x 2.0 GHz"),
)
HARDWARE = {row.name: row for row in _ROWS}
LIST = "list"
_MAKERS = ("nvidia", "geforce", "tesla", "rtx", "agx", "apple", "intel")  # words that a name may be given without
_ALSO = {"a100": "A100-80G"}


def plain_name(text: str) -> str:
    """Return a device's name for comparison: lower case, without dashes, maker and family."""
    plain = "".join(c for c in text.lower() if c.isalnum() or c == "+")
    for word in _MAKERS:
        plain = plain.replace(word, "")
    return plain


def hardware_named(name: str) -> Hardware:
    """Return the device called ``name``, in any spelling. Raises OptionError that lists the known names."""
    plain = plain_name(name)
    found = {plain_name(row.name): row for row in _ROWS}.get(plain) or HARDWARE.get(_ALSO.get(plain, ""))
    if found is None:
        raise OptionError(f"--hardware is {name!r}; expected one of {', '.join(HARDWARE)}")
    return found
