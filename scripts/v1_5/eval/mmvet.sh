#!/usr/bin/env bash
# MM-Vet: open questions that need several skills, scored by a judge. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answers=$DATA/mm-vet/answers/$NAME.jsonl
results=$DATA/mm-vet/results/$NAME.json
answer model_vqa "$answers" --question-file "$DATA/mm-vet/llava-mm-vet.jsonl" --image-folder "$DATA/mm-vet/images" "$@"

python scripts/convert_mmvet_for_eval.py --src "$answers" --dst "$results"
if judge_is_there; then
    python -m llava.eval.eval_mmvet --questions "$DATA/mm-vet/mm-vet.json" --results "$results" \
        --output "$DATA/mm-vet/results/${NAME}_grades.jsonl" --model "${JUDGE:-gpt-4-0314}"
fi
