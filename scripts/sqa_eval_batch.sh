#!/usr/bin/env bash
# ScienceQA, answered by CHUNKS processes into a file each; sqa_eval_gather.sh merges and scores them.
# v1_5/eval/common.sh says what the variables mean; in addition:
#
#   FORMAT=   prompt format of the question file, llava_test_FORMAT.json: QCM-LEA; with PRESET=shapes CQM-A
source "$(dirname "$0")/v1_5/eval/common.sh"

format=QCM-LEA
[ "${PRESET:-}" != shapes ] || format=CQM-A
answers=$DATA/scienceqa/answers/$NAME.jsonl
answer_parts model_vqa_science "$answers" --question-file "$DATA/scienceqa/llava_test_${FORMAT:-$format}.json" \
    --image-folder "$DATA/scienceqa/images/test" "$@"
