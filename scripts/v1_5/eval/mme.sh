#!/usr/bin/env bash
# MME: yes or no, perception and cognition. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answer model_vqa_loader "$DATA/MME/answers/$NAME.jsonl" --question-file "$DATA/MME/llava_mme.jsonl" \
    --image-folder "$DATA/MME/MME_Benchmark_release_version" "$@"

python scripts/convert_answer_to_mme.py --dir "$DATA/MME" --experiment "$NAME"
python -m llava.eval.eval_mme --results_dir "$DATA/MME/eval_tool/answers/$NAME"
