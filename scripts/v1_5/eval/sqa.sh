#!/usr/bin/env bash
# ScienceQA: multiple choice, with and without an image. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answers=$DATA/scienceqa/answers/$NAME.jsonl
answer model_vqa_science "$answers" --question-file "$DATA/scienceqa/llava_test_CQM-A.json" \
    --image-folder "$DATA/scienceqa/images/test" --single-pred-prompt "$@"

python -m llava.eval.eval_science_qa --base-dir "$DATA/scienceqa" --result-file "$answers" \
    --output-file "${answers%.jsonl}_output.jsonl" --output-result "${answers%.jsonl}_result.json"
