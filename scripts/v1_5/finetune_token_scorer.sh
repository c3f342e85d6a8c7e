#!/usr/bin/env bash
# Adds a token scorer to a model that answers under a latency budget, and trains it alone: which image tokens the answer
# attends to. 60 steps of 32 samples are enough: on eight GPUs the default, BATCH=4 samples for each. LAYER= the layer that
# it scores at, P by default; BUDGETS= low:high.
#
#   MODEL=runs/mine bash scripts/v1_5/finetune_token_scorer.sh
#   PRESET=shapes MODEL=runs/shapes-H bash scripts/v1_5/finetune_token_scorer.sh
STEPS=${STEPS:-60}
BATCH=${BATCH:-}
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero2.json
default MODEL checkpoints/ada-llava-H-v1.5-7b
default TOWER ""
mix665k
default OUT "${MODEL%/}-scored"

recipe \
    "${CHAT[@]}" \
    --token_scorer_layer "${LAYER:-P}" \
    --latency_budget "${BUDGETS:-0.5:1.0}" \
    --max_steps "$STEPS" \
    --per_device_train_batch_size "${BATCH:-4}" \
    --learning_rate 2e-4 \
    --gradient_checkpointing False \
    --save_strategy no
