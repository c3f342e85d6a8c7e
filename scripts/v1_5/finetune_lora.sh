#!/usr/bin/env bash
# LLaVA-1.5, stage 2 with LoRA: trains adapters in the language model, and the projector in full. recipe.sh says what the
# variables mean; scripts/merge_lora_weights.py merges the result.
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero3.json
default MODEL lmsys/vicuna-7b-v1.5
default PROJECTOR checkpoints/llava-v1.5-7b-pretrain/mm_projector.bin
mix665k
default OUT "checkpoints/llava-v1.5-7b-lora${SCHEDULER:+-ada-$SCHEDULER}"

recipe \
    "${CHAT[@]}" \
    "${LORA[@]}" \
    --per_device_train_batch_size 16 \
    --save_steps 50000
