#!/usr/bin/env bash
# Compares training in two processes with training in one: ZeRO-2 and ZeRO-3, H and L, on a CPU.
# scripts/distributed_check.py says what is checked, and prints a table.
#
#   bash scripts/test_distributed.sh                                           # all of it, into runs/distributed
#   bash scripts/test_distributed.sh --kinds heads --stages 3 --steps 9        # a part
#   bash scripts/test_distributed.sh --distillation_weight 0.5                 # other flags go to the recipes
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=train source scripts/venv.sh

exec python scripts/distributed_check.py "$@"
