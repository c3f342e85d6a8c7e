#!/usr/bin/env bash
# The first LLaVA on ScienceQA: twelve epochs of its training questions, which convert_sqa_to_llava.py writes.
# first_llava.sh says what the variables mean.
source "$(dirname "$0")/first_llava.sh"

_sqa=playground/data/eval/scienceqa
default MODEL lmsys/vicuna-13b-v1.3
default PROJECTOR checkpoints/llava-pretrain-vicuna-13b-v1.3/mm_projector.bin
default DATA $_sqa/llava_train_QCM-LEA.json
default IMAGES $_sqa/images/train
default OUT "checkpoints/llava-vicuna-13b-v1.3-ScienceQA_QCM_LEA-12e${SCHEDULER:+-ada-$SCHEDULER}"

first_llava --num_train_epochs 12
