#!/usr/bin/env bash
# GQA: open questions on what is where. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

SPLIT=llava_gqa_testdev_balanced
GQA=$DATA/gqa/data
answers=$DATA/gqa/answers/$SPLIT/$NAME/merge.jsonl
answer model_vqa_loader "$answers" --question-file "$DATA/gqa/$SPLIT.jsonl" --image-folder "$GQA/images" "$@"

python scripts/convert_gqa_for_eval.py --src "$answers" --dst "$GQA/testdev_balanced_predictions.json"
if [ -f "$GQA/eval/eval.py" ]; then # GQA's own
    cd "$GQA" && python eval/eval.py --tier testdev_balanced
else
    python -m llava.eval.eval_gqa --questions "$GQA/testdev_balanced_questions.json" \
        --predictions "$GQA/testdev_balanced_predictions.json"
fi
