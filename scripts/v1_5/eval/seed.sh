#!/usr/bin/env bash
# SEED-Bench: multiple choice about images and frames of videos. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answers=$DATA/seed_bench/answers/$NAME/merge.jsonl
answer model_vqa_loader "$answers" --question-file "$DATA/seed_bench/llava-seed-bench.jsonl" \
    --image-folder "$DATA/seed_bench" "$@"

python scripts/convert_seed_for_submission.py --annotation-file "$DATA/seed_bench/SEED-Bench.json" \
    --result-file "$answers" --result-upload-file "$DATA/seed_bench/answers_upload/$NAME.jsonl"
