#!/usr/bin/env bash
# Fine-tunes a LLaVA on your data, which DATA= and IMAGES= name. recipe.sh says what the variables mean.
#
#   DATA=my.json IMAGES=images OUT=checkpoints/mine bash scripts/v1_5/finetune_task.sh
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero3.json
default MODEL liuhaotian/llava-v1.5-7b
default TOWER ""
mix665k
default OUT "checkpoints/llava-v1.5-7b-task${SCHEDULER:+-ada-$SCHEDULER}"

recipe \
    "${CHAT[@]}" \
    --per_device_train_batch_size 16 \
    --learning_rate 2e-5 \
    --save_steps 50000
