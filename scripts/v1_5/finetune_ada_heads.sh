#!/usr/bin/env bash
# AdaLLaVA-H: trains a LLaVA-1.5 to answer under a latency budget by switching attention heads and MLP neurons.
#
#   bash scripts/v1_5/finetune_ada_heads.sh                   # LLaVA-1.5 7B, the published recipe, on GPUs
#   PRESET=shapes bash scripts/v1_5/finetune_ada_heads.sh     # the bundled base model, on a CPU
#
# With `--lora_enable True --learning_rate 2e-4` it trains adapters, and the scheduler in full.
SCHEDULER=H
source "$(dirname "$0")/finetune_ada.sh"
