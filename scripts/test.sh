#!/usr/bin/env bash
# Every check: ruff, mypy, pytest.
#
#   bash scripts/test.sh                  # what must pass before a commit lands
#   bash scripts/test.sh lint             # ruff and mypy alone
#   bash scripts/test.sh unit             # unit tests alone: no process, server, program, training, checkpoint's folder
#   bash scripts/test.sh integration      # the other tests alone; or slow, gpu, browser, network
#   bash scripts/test.sh tests/ada -x     # arguments go to pytest
#   JOBS=4 bash scripts/test.sh           # tests at a time; 2 by default, 0: in pytest's own process
#   COVERAGE=1 bash scripts/test.sh       # report the lines that no test runs; fail below the floor of pyproject.toml
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh

everywhere="not slow and not gpu and not browser and not network" # what needs nothing special
part=all
case "${1:-}" in
    lint | unit | integration | slow | gpu | browser | network) part=$1 && shift ;;
esac

if [ "$part" = all ] || [ "$part" = lint ]; then
    ruff check .
    ruff format --check .
    mypy
fi
case $part in
    lint) exit ;;
    all) marks=$everywhere ;;
    unit) marks="not integration and $everywhere" ;;
    integration) marks="integration and $everywhere" ;;
    *) marks=$part ;;
esac

coverage=()
[ -z "${COVERAGE:-}" ] || coverage=(--cov --cov-report term:skip-covered)
# A file's tests stay together, for what they set up. One thread each: the models are small, and programs take long to
# start.
OMP_NUM_THREADS=1 python -m pytest --numprocesses "${JOBS:-2}" --dist loadfile -m "${MARKS:-$marks}" "${coverage[@]}" "$@"
