"""Runs the benchmarks: ``python -m ada.bench``."""

from ada.bench.prefill_decode import main

if __name__ == "__main__":
    main()
