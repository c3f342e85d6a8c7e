#!/usr/bin/env bash
# Every check: ruff, mypy, pytest.
#
#   bash scripts/test.sh                  # what must pass before a commit lands
#   bash scripts/test.sh unit             # only unit tests: no process, no server, no training run
#   bash scripts/test.sh integration      # only the others; or slow, gpu, browser, network
#   bash scripts/test.sh lint             # no tests
#   bash scripts/test.sh tests/ada -x     # arguments go to pytest
#   JOBS=4 bash scripts/test.sh           # tests at a time; 2 by default, 0: in pytest's own process
#   COVERAGE=1 bash scripts/test.sh       # report the lines that no test runs; fail below the floor in pyproject.toml
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh

special="not slow and not gpu and not browser and not network"
marks=$special
case "${1:-}" in
    unit) marks="not integration and $special" && shift ;;
    integration) marks="integration and $special" && shift ;;
    slow | gpu | browser | network) marks=$1 && shift ;;
esac

ruff check .
ruff format --check .
mypy
[ "${1:-}" != lint ] || exit 0

# A file's tests stay together, for what they set up. One thread each: the models are small, and programs take long to
# start.
coverage=()
[ -z "${COVERAGE:-}" ] || coverage=(--cov --cov-report term:skip-covered)
OMP_NUM_THREADS=1 python -m pytest --numprocesses "${JOBS:-2}" --dist loadfile -m "${MARKS:-$marks}" "${coverage[@]}" "$@"
