"""Runs the load benchmark: ``python -m ada.bench.load`` is short for ``python -m ada.bench load``."""

import sys

from ada.bench.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(["load", *sys.argv[1:]]))
