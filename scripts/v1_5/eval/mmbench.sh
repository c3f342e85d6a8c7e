#!/usr/bin/env bash
# MMBench: multiple choice. common.sh says what the variables mean; SPLIT names the table.
source "$(dirname "$0")/common.sh"

SPLIT=${SPLIT:-mmbench_dev_20230712}
table=$DATA/mmbench/$SPLIT.tsv
answers=$DATA/mmbench/answers/$SPLIT
answer model_vqa_mmbench "$answers/$NAME.jsonl" --question-file "$table" --single-pred-prompt "$@"

python scripts/convert_mmbench_for_submission.py --annotation-file "$table" --result-dir "$answers" \
    --upload-dir "$DATA/mmbench/answers_upload/$SPLIT" --experiment "$NAME"
[[ $SPLIT == *test* ]] || # only the server knows the test split's answers
    python -m llava.eval.eval_mmbench --annotation-file "$table" --result-file "$answers/$NAME.jsonl"
