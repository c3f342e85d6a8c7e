#!/usr/bin/env bash
# LLaVA-1.5, stage 2: projector and language model learn, on the 665k mix. MODEL=, PROJECTOR=, DATA=, IMAGES=, OUT=
# override.
set -euo pipefail
cd "$(dirname "$0")/../.."

deepspeed llava/train/train_mem.py \
    --deepspeed scripts/zero3.json \
    --model_name_or_path "${MODEL:-lmsys/vicuna-7b-v1.5}" \
    --version v1 \
    --data_path "${DATA:-playground/data/llava_v1_5_mix665k.json}" \
    --image_folder "${IMAGES:-playground/data}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --pretrain_mm_mlp_adapter "${PROJECTOR:-checkpoints/llava-v1.5-7b-pretrain/mm_projector.bin}" \
    --mm_projector_type mlp2x_gelu \
    --mm_vision_select_layer -2 \
    --mm_use_im_start_end False \
    --mm_use_im_patch_token False \
    --image_aspect_ratio pad \
    --group_by_modality_length True \
    --bf16 True \
    --tf32 True \
    --output_dir "${OUT:-checkpoints/llava-v1.5-7b}" \
    --num_train_epochs 1 \
    --per_device_train_batch_size 16 \
    --gradient_accumulation_steps 1 \
    --learning_rate 2e-5 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type cosine \
    --logging_steps 1 \
    --save_strategy steps \
    --save_steps 50000 \
    --save_total_limit 1 \
    --model_max_length 2048 \
    --gradient_checkpointing True \
    --dataloader_num_workers 4 \
    --lazy_preprocess True \
    --report_to "${REPORT_TO:-tensorboard}" \
    "$@"
