#!/usr/bin/env bash
# POPE: object hallucination. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

questions=$DATA/pope/llava_pope_test.jsonl
answers=$DATA/pope/answers/$NAME.jsonl
answer model_vqa_loader "$answers" --question-file "$questions" --image-folder "$DATA/pope/val2014" "$@"

python -m llava.eval.eval_pope --annotation-dir "$DATA/pope/coco" --question-file "$questions" \
    --result-file "$answers"
