#!/usr/bin/env bash
# LLaVA-1.5, stage 1: only the projector learns, on captions (LCS-558K). MODEL=, DATA=, IMAGES=, OUT= override.
set -euo pipefail
cd "$(dirname "$0")/../.."

deepspeed llava/train/train_mem.py \
    --deepspeed scripts/zero2.json \
    --model_name_or_path "${MODEL:-lmsys/vicuna-7b-v1.5}" \
    --version plain \
    --data_path "${DATA:-playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}" \
    --image_folder "${IMAGES:-playground/data/LLaVA-Pretrain/images}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --mm_projector_type mlp2x_gelu \
    --tune_mm_mlp_adapter True \
    --mm_vision_select_layer -2 \
    --mm_use_im_start_end False \
    --mm_use_im_patch_token False \
    --bf16 True \
    --tf32 True \
    --output_dir "${OUT:-checkpoints/llava-v1.5-7b-pretrain}" \
    --num_train_epochs 1 \
    --per_device_train_batch_size 32 \
    --gradient_accumulation_steps 1 \
    --learning_rate 1e-3 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type cosine \
    --logging_steps 1 \
    --save_strategy steps \
    --save_steps 24000 \
    --save_total_limit 1 \
    --model_max_length 2048 \
    --gradient_checkpointing True \
    --dataloader_num_workers 4 \
    --lazy_preprocess True \
    --report_to "${REPORT_TO:-tensorboard}" \
    "$@"
