#!/usr/bin/env bash
# Every check: ruff, mypy, pytest.
#
#   bash scripts/test.sh                  # what must pass before a commit lands
#   bash scripts/test.sh tests/ada -x     # arguments go to pytest
#   MARKS=slow bash scripts/test.sh       # the long ones (or gpu, browser, network)
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh

ruff check .
mypy
python -m pytest -m "${MARKS:-not slow and not gpu and not browser and not network}" "$@"
