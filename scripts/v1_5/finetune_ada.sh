#!/usr/bin/env bash
# LLaVA's stage 2 with a scheduler of kind SCHEDULER (H or L); called by finetune_ada_heads.sh and
# finetune_ada_layers.sh, which say what the variables mean. Further arguments go to llava/train/train.py.
set -euo pipefail
cd "$(dirname "$0")/../.."

gpu_recipe() { # the published one: 128 samples a step, learning rate 1e-5, one epoch of the 665k mix
    python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
        echo "error: no CUDA device here, and the published recipe trains 7B on eight. On a CPU, the small setting" \
            "runs: PRESET=shapes bash $LAUNCHED" >&2
        exit 1
    }
    deepspeed llava/train/train_mem.py \
        --deepspeed "${DEEPSPEED:-scripts/zero3.json}" \
        --model_name_or_path "${MODEL:-liuhaotian/llava-v1.5-7b}" \
        --version v1 \
        --data_path "${DATA:-playground/data/llava_v1_5_mix665k.json}" \
        --image_folder "${IMAGES:-playground/data}" \
        --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
        --mm_projector_type mlp2x_gelu \
        --mm_vision_select_layer -2 \
        --mm_use_im_start_end False \
        --mm_use_im_patch_token False \
        --image_aspect_ratio pad \
        --group_by_modality_length True \
        --scheduler_type "$SCHEDULER" \
        --num_prefix_layers "${PREFIX:-16}" \
        --scheduler_rank "${RANK:-8}" \
        --latency_budget "${BUDGETS:-0.5:1.0}" \
        --bf16 True \
        --tf32 True \
        --output_dir "${OUT:-checkpoints/ada-llava-$SCHEDULER-v1.5-7b}" \
        --num_train_epochs 1 \
        --per_device_train_batch_size 8 \
        --gradient_accumulation_steps 2 \
        --learning_rate 1e-5 \
        --weight_decay 0. \
        --warmup_ratio 0.03 \
        --lr_scheduler_type cosine \
        --logging_steps 1 \
        --save_strategy steps \
        --save_steps 500 \
        --save_total_limit 1 \
        --model_max_length 2048 \
        --gradient_checkpointing True \
        --dataloader_num_workers 4 \
        --lazy_preprocess True \
        --report_to "${REPORT_TO:-tensorboard}" \
        "$@"
}

shapes_recipe() { # the bundled base on a CPU
    source scripts/venv.sh
    # Fresh memory costs more than the arithmetic at this size: keep what was freed.
    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736
    local data=${DATA:-playground/data/shapes/conversations.json}
    local images=${IMAGES:-$(dirname "$data")/images}
    if [ ! -f "$data" ]; then
        python -m playground.shapes.generate --out "$(dirname "$data")" --scenes "${SCENES:-6000}"
    fi
    python llava/train/train.py \
        --use_cpu True \
        --attn_implementation eager \
        --model_name_or_path "${MODEL:-ada/checkpoints/shapes-base}" \
        --version v1 \
        --data_path "$data" \
        --image_folder "$images" \
        --image_aspect_ratio pad \
        --mm_use_im_patch_token False \
        --group_by_modality_length True \
        --scheduler_type "$SCHEDULER" \
        --num_prefix_layers "${PREFIX:-5}" \
        --scheduler_rank "${RANK:-2}" \
        --latency_budget "${BUDGETS:-0.5:1.0}" \
        --bf16 True \
        --output_dir "${OUT:-runs/shapes-$SCHEDULER}" \
        --max_steps "${STEPS:-200}" \
        --per_device_train_batch_size "${BATCH:-48}" \
        --learning_rate 3e-4 \
        --adam_beta2 0.98 \
        --weight_decay 0.05 \
        --warmup_ratio 0.03 \
        --lr_scheduler_type cosine \
        --logging_steps 10 \
        --save_strategy steps \
        --save_steps "${SAVE_STEPS:-50}" \
        --save_total_limit 1 \
        --model_max_length 512 \
        --dataloader_num_workers 1 \
        --dataloader_persistent_workers True \
        --report_to none \
        "$@"
}

case "${PRESET:-}" in
    "") gpu_recipe "$@" ;;
    shapes) shapes_recipe "$@" ;;
    *)
        echo "error: PRESET is '$PRESET'; expected shapes, or nothing for the published 7B recipe" >&2
        exit 1
        ;;
esac
