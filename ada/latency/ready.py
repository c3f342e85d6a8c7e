"""Provides a model's TTFT predictor on this device: the stored profile's, or a short calibration's, with a notice."""

from __future__ import annotations

import logging

from ada.latency.device_profile import DeviceFingerprint, load_profile
from ada.latency.measure import calibrate, warm_up
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel
from llava.errors import OptionError

log = logging.getLogger(__name__)

SHORT = 24  # points of an automatic calibration


def stored_predictor(model: AdaptiveModel) -> TTFTPredictor | None:
    """Return the predictor of the profile in the cache folder, the model warmed up; None where none fits."""
    try:
        stored = _read(model, DeviceFingerprint.of(model))
    except OptionError as missing:
        log.info("%s", missing)
        return None
    warm_up(model)
    return stored


def ready_predictor(model: AdaptiveModel, automatic: bool = True) -> TTFTPredictor:
    """Return the predictor of the stored profile; where none fits, one is measured now and stored.

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


def _read(model: AdaptiveModel, here: DeviceFingerprint) -> TTFTPredictor:
    if not here.path.exists():
        raise OptionError(f"there is no calibration of this model on {here.device} ({here.dtype})")
    return TTFTPredictor(load_profile(here.path, here), model.units)
