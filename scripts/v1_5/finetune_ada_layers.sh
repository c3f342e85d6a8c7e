#!/usr/bin/env bash
# AdaLLaVA-L: trains a LLaVA-1.5 to answer under a latency budget by skipping layers.
#
#   bash scripts/v1_5/finetune_ada_layers.sh                   # LLaVA-1.5 7B, the published recipe, on GPUs
#   PRESET=shapes bash scripts/v1_5/finetune_ada_layers.sh     # the bundled base model, on a CPU
#
# With `--lora_enable True --learning_rate 2e-4` it trains adapters, and the scheduler in full.
SCHEDULER=L
source "$(dirname "$0")/finetune_ada.sh"
