"""From a loaded model to its device's times: the stored profile, or a short calibration with a notice."""

from __future__ import annotations

import logging
from typing import Any

from ada.latency.device_profile import DeviceFingerprint, load_profile
from ada.latency.measure import calibrate, warm_up
from ada.latency.ttft_predictor import TTFTPredictor
from llava.errors import OptionError

log = logging.getLogger(__name__)

SHORT = 24  # points of an automatic calibration


def stored_latency(model: Any) -> TTFTPredictor | None:
    """The profile in the cache folder, where there is one that fits."""
    try:
        return _read(model, DeviceFingerprint.of(model))
    except OptionError as missing:
        log.info("%s", missing)
        return None


def ready_latency(model: Any, automatic: bool = True) -> TTFTPredictor:
    """The profile in the cache folder; where there is none that fits, one is measured now and stored.

    Raises OptionError instead where ``automatic`` is off.
    """
    here = DeviceFingerprint.of(model)
    try:
        stored = _read(model, here)
        warm_up(model)
        return stored
    except OptionError as missing:
        if not automatic:
            raise OptionError(f"{missing}. Run python -m ada.calibrate, or leave out --no-auto-calibrate") from missing
        log.warning("%s. A short calibration runs first; python -m ada.calibrate makes a better one", missing)
    profile, _ = calibrate(model, SHORT)
    profile.save(here.path)
    return TTFTPredictor(profile, model.units)


def _read(model: Any, here: DeviceFingerprint) -> TTFTPredictor:
    if not here.path.exists():
        raise OptionError(f"there is no calibration of this model on {here.device} ({here.dtype})")
    return TTFTPredictor(load_profile(here.path, here), model.units)
