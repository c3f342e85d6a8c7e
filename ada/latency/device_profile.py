"""Stores the measured profile of one model on one device in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers

from ada.latency.latency_model import DECODE_TERMS, PLAN_TERMS, REST_TERMS, LatencyModel
from ada.protocols import AdaptiveModel
from llava.errors import OptionError
from llava.files.atomic_write import atomic_write
from llava.model.int8_linear import is_int8

VERSION = 4  # 4: decode steps of several rows
TARGET_QUANTILE = 0.96  # of TTFTs below the predicted p95: a little over 95 %, to keep 95 % with some margin
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
    """What measured times depend on.

    model: JSON of its sizes, unit grid, vision tower, storage of weights and attention implementation. threads: CPU
    threads of torch. torch, transformers: their versions.
    """

    model: str
    device: str
    dtype: str
    threads: int
    torch: str
    transformers: str

    @classmethod
    def of(cls, model: AdaptiveModel) -> DeviceFingerprint:
        """Return the fingerprint of a loaded model in this process."""
        tower = model.get_vision_tower()
        sizes = {name: getattr(model.config, name) for name in SIZES}
        parts: dict[str, Any] = {**sizes, **asdict(model.units), "attention": model.config._attn_implementation}
        for bits in (4, 8):
            if getattr(model, f"is_loaded_in_{bits}bit", False) or (bits == 8 and is_int8(model)):
                parts["weight_bits"] = bits
        if tower is not None:
            parts |= {"vision": [tower.config.hidden_size, tower.config.image_size, tower.layers_run]}
            if tower.crops_per_image > 1:
                parts["vision"].append(tower.crops_per_image)
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
        """The profile's file in the user's cache folder: one for each model, device, dtype and number of threads."""
        parts = (self.model, self.device, self.dtype, str(self.threads))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return platformdirs.user_cache_path("ada-llava", appauthor=False) / "calibration" / f"{key}.json"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {platform.processor() or platform.system()} {os.cpu_count()} cores"


@dataclass(frozen=True)
class Profile:
    """A calibration: the coefficients of ``LatencyModel``, in milliseconds, and how far times scatter around it.

    spread: what ``TARGET_QUANTILE`` of measured over expected TTFTs are below; rest_spread: the same of the time after
    the plan, expected at the pace of the time up to it; token_spread: the same of later tokens, on an answer's average.
    start_ms: what the first steps after a prefill, or under another plan, take more than later ones. errors: relative,
    on workloads that were not fitted: ``{"prefill": {"median", "p95"}, "decode": ...}``.
    """

    surroundings: DeviceFingerprint
    date: str
    plan: list[float]
    rest: list[float]
    decode: list[float]
    spread: float
    rest_spread: float
    errors: dict[str, dict[str, float]]
    start_ms: float = 0.0
    token_spread: float = 1.1
    version: int = VERSION

    @property
    def latency_model(self) -> LatencyModel:
        """The fitted coefficients of all terms."""
        return LatencyModel(self.plan, self.rest, self.decode)

    def save(self, path: Path) -> None:
        """Write the profile to ``path`` atomically, as JSON."""
        atomic_write(path, json.dumps(asdict(self), indent=2))


def load_profile(path: Path, here: DeviceFingerprint) -> Profile:
    """Read the profile at ``path``.

    Raises OptionError for a file that is not a profile of this version, and for one with another fingerprint than
    ``here``, with what differs.
    """
    again = "calibrate again: python -m ada.calibrate"
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read as a calibration profile ({error}); {again}") from error
    try:
        if fields["version"] != VERSION:
            raise OptionError(f"{path} has version {fields['version']}, this program reads {VERSION}; {again}")
        profile = Profile(**{**fields, "surroundings": DeviceFingerprint(**fields["surroundings"])})
        coefficients, terms = (profile.plan, profile.rest, profile.decode), (PLAN_TERMS, REST_TERMS, DECODE_TERMS)
        is_complete = [*map(len, coefficients)] == [*map(len, terms)]
    except (KeyError, TypeError) as error:
        raise OptionError(f"{path} is not a calibration profile ({error}); {again}") from error
    if not is_complete:
        raise OptionError(f"{path} is not a calibration profile of this version; {again}")
    for name, mine in asdict(here).items():
        if (other := getattr(profile.surroundings, name)) != mine:
            raise OptionError(f"{path} was made for another {name}: {other}, and this is {mine}; {again}")
    return profile
