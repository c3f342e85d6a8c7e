#!/usr/bin/env bash
# LLaVA-1.5, stage 1: trains the projector alone, on captions (LCS-558K). recipe.sh says what the variables mean.
source "$(dirname "$0")/recipe.sh"
projector_alone

default DEEPSPEED scripts/zero2.json
default MODEL lmsys/vicuna-7b-v1.5
default DATA playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json
default IMAGES playground/data/LLaVA-Pretrain/images
default OUT checkpoints/llava-v1.5-7b-pretrain

recipe \
    --version plain \
    --tune_mm_mlp_adapter True \
    --per_device_train_batch_size 32 \
    --learning_rate 1e-3 \
    --save_steps 24000
