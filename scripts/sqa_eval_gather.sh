#!/usr/bin/env bash
# Merges and scores what sqa_eval_batch.sh has answered, called with the same variables. v1_5/eval/common.sh says what they
# mean.
source "$(dirname "$0")/v1_5/eval/common.sh"

answers=$DATA/scienceqa/answers/$NAME.jsonl
merge_parts "$answers"

python -m llava.eval.eval_science_qa --base-dir "$DATA/scienceqa" --result-file "$answers" \
    --output-file "${answers%.jsonl}_output.jsonl" --output-result "${answers%.jsonl}_result.json"
