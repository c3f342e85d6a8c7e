#!/usr/bin/env bash
# The first LLaVA, stage 2 with LoRA. first_llava.sh says what the variables mean; scripts/merge_lora_weights.py merges the
# result.
source "$(dirname "$0")/first_llava.sh"

default DATA playground/data/llava_instruct_80k.json
default OUT "checkpoints/llava-$MODEL_VERSION-finetune_lora${SCHEDULER:+-ada-$SCHEDULER}"

first_llava --lora_enable True
