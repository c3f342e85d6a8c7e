#!/usr/bin/env bash
# Q-Bench: multiple choice on how an image looks: bash qbench.sh [dev|test]. common.sh says what the variables mean.
split=dev
if [[ ${1:-} != -* && $# -gt 0 ]]; then
    split=$1
    shift
fi
CONV=${CONV:-llava_v1}
source "$(dirname "$0")/common.sh"

answers=$DATA/qbench/answers/$split/$NAME.jsonl
answer model_vqa_qbench "$answers" --questions-file "$DATA/qbench/llvisionqa_$split.json" \
    --image-folder "$DATA/qbench/images_llvisionqa" --lang en "$@"
cp "$answers" "$DATA/qbench/llvisionqa_${split}_answers.jsonl"
echo "Answers to submit: $DATA/qbench/llvisionqa_${split}_answers.jsonl"
