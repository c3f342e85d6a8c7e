"""What was measured of one model on one device, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ada.latency.latency_model import DECODE_TERMS, PLAN_TERMS, REST_TERMS
from llava.errors import OptionError

VERSION = 2
TARGET_QUANTILE = (
    0.96  # of times to first token below the predicted p95: a little over 95 %, so that it is not left to luck
)
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


@dataclass(frozen=True)
class DeviceFingerprint:
    """On what the times depend. ``model``: sizes, unit grid, vision tower, how weights are stored, and attention."""

    model: str
    device: str
    dtype: str
    threads: int
    torch: str
    transformers: str

    @classmethod
    def of(cls, model: Any) -> DeviceFingerprint:
        """This process's, for a loaded adaptive model."""
        tower = model.get_vision_tower()
        sizes = {name: getattr(model.config, name) for name in SIZES}
        parts: dict[str, Any] = {**sizes, **asdict(model.units), "attention": model.config._attn_implementation}
        for bits in (4, 8):
            if getattr(model, f"is_loaded_in_{bits}bit", False):
                parts["weight_bits"] = bits
        if tower is not None:
            parts |= {"vision": [tower.config.hidden_size, tower.config.image_size, tower.layers_run]}
        return cls(
            json.dumps(parts, sort_keys=True),
            _device_name(model.device),
            str(model.dtype).removeprefix("torch."),
            torch.get_num_threads(),
            torch.__version__,
            transformers.__version__,
        )

    @property
    def path(self) -> Path:
        """Where the profile of this model on this device lies, one for each number of threads."""
        parts = (self.model, self.device, self.dtype, str(self.threads))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "ada-llava" / "calibration" / f"{key}.json"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {platform.processor() or platform.system()} {os.cpu_count()} cores"


@dataclass(frozen=True)
class Profile:
    """Coefficients of ``latency_model``, in milliseconds. spread: of measured over predicted time to first token, what
    ``TARGET_QUANTILE`` of them are below; rest_spread: the same of the time after the plan, predicted at the pace of
    the time up to it. errors: relative, on workloads that were not fitted: ``{"prefill": {"median", "p95"}, ...}``.
    """

    surroundings: DeviceFingerprint
    date: str
    plan: list[float]
    rest: list[float]
    decode: list[float]
    spread: float
    rest_spread: float
    errors: dict[str, dict[str, float]]
    version: int = VERSION

    def save(self, path: Path) -> None:
        """Write beside, then rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as part:
            json.dump(asdict(self), part, indent=2)
        os.replace(part.name, path)


def load_profile(path: Path, here: DeviceFingerprint) -> Profile:
    """Raises OptionError, which names what differs, for a profile of other surroundings or no profile."""
    again = "calibrate again: python -m ada.calibrate"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read as a calibration profile ({error}); {again}") from error
    try:
        if fields["version"] != VERSION:
            raise OptionError(f"{path} has version {fields['version']}, this program reads {VERSION}; {again}")
        made = DeviceFingerprint(**fields["surroundings"])
        profile = Profile(**{**fields, "surroundings": made})
        found, wanted = (profile.plan, profile.rest, profile.decode), (PLAN_TERMS, REST_TERMS, DECODE_TERMS)
        whole = [*map(len, found)] == [*map(len, wanted)]
    except (KeyError, TypeError) as error:
        raise OptionError(f"{path} is not a calibration profile ({error}); {again}") from error
    if not whole:
        raise OptionError(f"{path} is not a calibration profile of this version; {again}")
    for name, mine in asdict(here).items():
        if (other := getattr(made, name)) != mine:
            raise OptionError(f"{path} was made for another {name}: {other}, and this is {mine}; {again}")
    return profile
