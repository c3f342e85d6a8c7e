#!/usr/bin/env bash
# The first LLaVA, stage 2 with QLoRA: adapters on a language model of 4 bits. first_llava.sh says what the variables mean.
source "$(dirname "$0")/first_llava.sh"

default DATA playground/data/llava_instruct_80k.json
default OUT "checkpoints/llava-$MODEL_VERSION-finetune_qlora${SCHEDULER:+-ada-$SCHEDULER}"

first_llava --lora_enable True --bits 4
