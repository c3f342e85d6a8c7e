#!/usr/bin/env bash
# Trains the bundled models from nothing, on a CPU: data, vision tower, language stage, LLaVA's stages 1 and 2, then a
# scheduler of each kind on fewer image tokens, a token scorer and a frontier table. Stopped at any moment, the same command
# resumes.
#
#   bash scripts/shapes/train.sh                                   # everything, into runs/shapes
#   OUT=elsewhere SCENES=2000 bash scripts/shapes/train.sh
#   BUNDLE=ada/checkpoints bash scripts/shapes/train.sh            # and replace the bundled models with the result
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/venv.sh

OUT=$(realpath -m "${OUT:-runs/shapes}")
DATA=${DATA:-$OUT/data}
SCENES=${SCENES:-60000}
TOWER_STEPS=${TOWER_STEPS:-4500}
LANGUAGE_STEPS=${LANGUAGE_STEPS:-500}
STAGE1_STEPS=${STAGE1_STEPS:-150}
STAGE2_STEPS=${STAGE2_STEPS:-6500}
BUDGET_STEPS=${BUDGET_STEPS:-1500}
SCORER_STEPS=${SCORER_STEPS:-60}
FRONTIER_QUESTIONS=${FRONTIER_QUESTIONS:-2000}

# Allocating memory costs more than the arithmetic at this size: keep what was freed, in huge pages.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736 THP_MEM_ALLOC_ENABLE=1

train() { # flags: a stage is skipped when its result is there, and resumes from its checkpoints until then
    python llava/train/train.py --bf16 True --use_cpu True --attn_implementation eager \
        --lr_scheduler_type cosine --adam_beta2 0.98 --weight_decay 0.05 --logging_steps 20 --save_total_limit 1 \
        --dataloader_num_workers 1 --dataloader_persistent_workers True --mm_use_im_patch_token False --model_max_length 512 --report_to none \
        --check_data False "$@"
}

[ -f "$DATA/short.json" ] && [ -f "$DATA/test.jsonl" ] || python -m playground.shapes.generate --out "$DATA" --scenes "$SCENES"
[ -f "$OUT/tower/model.safetensors" ] ||
    python -m playground.shapes.tower --out "$OUT/tower" --steps "$TOWER_STEPS"
[ -f "$OUT/base/model.safetensors" ] ||
    python -m playground.shapes.language_base --data "$DATA/conversations.json" --out "$OUT/base"

[ -f "$OUT/language/model.safetensors" ] ||
    train --model_name_or_path "$OUT/base" --version v1 --data_path "$DATA/texts.json" \
        --output_dir "$OUT/language" --max_steps "$LANGUAGE_STEPS" --per_device_train_batch_size 24 \
        --learning_rate 1e-3 --warmup_steps 50 --save_steps 100 --group_by_modality_length True

[ -f "$OUT/stage1/mm_projector.bin" ] ||
    train --model_name_or_path "$OUT/language" --version plain --data_path "$DATA/captions.json" \
        --image_folder "$DATA/images" --vision_tower "$OUT/tower" --mm_projector_type mlp2x_gelu \
        --mm_vision_select_layer -1 --tune_mm_mlp_adapter True --output_dir "$OUT/stage1" \
        --max_steps "$STAGE1_STEPS" --per_device_train_batch_size 48 --learning_rate 2e-3 --warmup_steps 20 \
        --save_steps 100

[ -f "$OUT/stage2/model.safetensors" ] ||
    train --model_name_or_path "$OUT/language" --version v1 --data_path "$DATA/conversations.json" \
        --image_folder "$DATA/images" --vision_tower "$OUT/tower" --mm_projector_type mlp2x_gelu \
        --mm_vision_select_layer -1 --pretrain_mm_mlp_adapter "$OUT/stage1/mm_projector.bin" \
        --output_dir "$OUT/stage2" --max_steps "$STAGE2_STEPS" --per_device_train_batch_size 24 \
        --learning_rate 1e-3 --warmup_steps 100 --save_steps 200 --group_by_modality_length True

for kind in heads layers; do
    [ -f "$OUT/$kind/model.safetensors" ] ||
        MODEL="$OUT/stage2" DATA="$DATA/short.json" OUT="$OUT/$kind" PRESET=shapes STEPS="$BUDGET_STEPS" BATCH=24 \
            bash "scripts/v1_5/finetune_ada_$kind.sh" --check_data False --learning_rate 5e-4 --image_token_dropout 0.1
    [ -f "$OUT/$kind-scored/model.safetensors" ] ||
        MODEL="$OUT/$kind" DATA="$DATA/short.json" OUT="$OUT/$kind-scored" PRESET=shapes STEPS="$SCORER_STEPS" \
            bash scripts/v1_5/finetune_token_scorer.sh --check_data False
    [ -f "$OUT/$kind-scored/frontier.json" ] ||
        python -m ada.eval.frontier --model-path "$OUT/$kind-scored" --questions "$DATA/validation.jsonl" \
            --image-folder "$DATA/images" --limit "$FRONTIER_QUESTIONS" --out "$OUT/$kind-frontier"
done

bundle() { # result name [file]: copies what a checkpoint needs to answer, without what only training needs
    mkdir -p "$BUNDLE/$2"
    cp -r "$OUT/$1"/{config,generation_config,tokenizer,tokenizer_config}.json "$OUT/$1"/{model.safetensors,vision_tower} \
        ${3:+"$OUT/$1/$3"} "$BUNDLE/$2"
    rm -f "$BUNDLE/$2/promises.json" # of other weights; ada.eval.promise measures it anew
}

if [ -n "${BUNDLE:-}" ]; then
    bundle stage2 shapes-base
    bundle heads-scored shapes-H frontier.json
    bundle layers-scored shapes-L frontier.json
fi
