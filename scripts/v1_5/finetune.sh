#!/usr/bin/env bash
# LLaVA-1.5, stage 2: trains projector and language model on the 665k mix. recipe.sh says what the variables mean.
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero3.json
default MODEL lmsys/vicuna-7b-v1.5
default PROJECTOR checkpoints/llava-v1.5-7b-pretrain/mm_projector.bin
mix665k
default OUT "checkpoints/llava-v1.5-7b${SCHEDULER:+-ada-$SCHEDULER}"

recipe \
    "${CHAT[@]}" \
    --per_device_train_batch_size 16 \
    --learning_rate 2e-5 \
    --save_steps 50000
