"""Runs the calibration program of ``ada.latency.calibrate``: ``python -m ada.calibrate``."""

from ada.latency.calibrate import main

if __name__ == "__main__":
    raise SystemExit(main())
