#!/usr/bin/env bash
# Fine-tunes a LLaVA on your data with LoRA; DATA= and IMAGES= name the data. recipe.sh says what the variables mean;
# scripts/merge_lora_weights.py merges the result.
#
#   DATA=my.json IMAGES=images OUT=checkpoints/mine-lora bash scripts/v1_5/finetune_task_lora.sh
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero3.json
default MODEL liuhaotian/llava-v1.5-7b
default TOWER ""
mix665k
default OUT "checkpoints/llava-v1.5-7b-task-lora${SCHEDULER:+-ada-$SCHEDULER}"

recipe \
    "${CHAT[@]}" \
    "${LORA[@]}" \
    --per_device_train_batch_size 16 \
    --save_steps 50000
