#!/usr/bin/env bash
# The first LLaVA, stage 1: trains the projector alone, on captions. first_llava.sh says what the variables mean.
source "$(dirname "$0")/first_llava.sh"
projector_alone

default MODEL "checkpoints/$MODEL_VERSION"
default DATA playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json
default IMAGES playground/data/LLaVA-Pretrain/images
default OUT "checkpoints/llava-$MODEL_VERSION-pretrain"

recipe \
    --version plain \
    --tune_mm_mlp_adapter True \
    --per_device_train_batch_size 16 \
    --learning_rate 2e-3 \
    --save_steps 24000
