#!/usr/bin/env bash
# MMBench in Chinese. common.sh says what the variables mean; SPLIT names the table.
source "$(dirname "$0")/common.sh"

SPLIT=${SPLIT:-mmbench_dev_cn_20231003}
table=$DATA/mmbench_cn/$SPLIT.tsv
answers=$DATA/mmbench_cn/answers/$SPLIT
answer model_vqa_mmbench "$answers/$NAME.jsonl" --question-file "$table" --lang cn --single-pred-prompt "$@"

python scripts/convert_mmbench_for_submission.py --annotation-file "$table" --result-dir "$answers" \
    --upload-dir "$DATA/mmbench_cn/answers_upload/$SPLIT" --experiment "$NAME"
[[ $SPLIT == *test* ]] || # only the server knows the test split's answers
    python -m llava.eval.eval_mmbench --annotation-file "$table" --result-file "$answers/$NAME.jsonl"
