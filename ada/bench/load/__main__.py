"""Runs the load benchmark: ``python -m ada.bench.load``."""

from ada.bench.load.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
