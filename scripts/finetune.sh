#!/usr/bin/env bash
# The first LLaVA, stage 2: trains projector and language model on 80,000 instructions. first_llava.sh says what the
# variables mean.
source "$(dirname "$0")/first_llava.sh"

default DATA playground/data/llava_instruct_80k.json
default OUT "checkpoints/llava-$MODEL_VERSION-finetune${SCHEDULER:+-ada-$SCHEDULER}"

first_llava
