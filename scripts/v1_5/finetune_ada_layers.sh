#!/usr/bin/env bash
# AdaLLaVA-L: teaches a LLaVA-1.5 to answer under a latency budget by switching whole layers.
#
#   bash scripts/v1_5/finetune_ada_layers.sh                   # LLaVA-1.5 7B, the published recipe, on GPUs
#   PRESET=shapes bash scripts/v1_5/finetune_ada_layers.sh     # the bundled base model, on a CPU
#
# MODEL= checkpoint to start from, DATA= training file, IMAGES= its picture folder, OUT= where the result goes.
# Stopped and started again with the same OUT, it goes on from its last checkpoint.
set -euo pipefail
SCHEDULER=L LAUNCHED=scripts/v1_5/finetune_ada_layers.sh exec bash "$(dirname "$0")/finetune_ada.sh" "$@"
