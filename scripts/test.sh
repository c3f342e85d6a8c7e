#!/usr/bin/env bash
# Every check: ruff, mypy, pytest.
#
#   bash scripts/test.sh                  # what must pass before a commit lands
#   bash scripts/test.sh tests/ada -x     # arguments go to pytest
#   MARKS=slow bash scripts/test.sh       # the long ones (or gpu, browser, network)
#   JOBS=4 bash scripts/test.sh           # tests at a time; 2 by default, 0: in pytest's own process
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh

ruff check .
mypy
# A file's tests stay together, for what they set up. One thread each: the models are small, and programs take long to
# start.
OMP_NUM_THREADS=1 python -m pytest --numprocesses "${JOBS:-2}" --dist loadfile \
    -m "${MARKS:-not slow and not gpu and not browser and not network}" "$@"
