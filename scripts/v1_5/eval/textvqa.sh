#!/usr/bin/env bash
# TextVQA: reading text in images. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answers=$DATA/textvqa/answers/$NAME.jsonl
answer model_vqa_loader "$answers" --question-file "$DATA/textvqa/llava_textvqa_val_v051_ocr.jsonl" \
    --image-folder "$DATA/textvqa/train_images" "$@"

python -m llava.eval.eval_textvqa --annotation-file "$DATA/textvqa/TextVQA_0.5.1_val.json" --result-file "$answers"
