#!/usr/bin/env bash
# VQAv2: open questions, for its server. common.sh says what the variables mean; SPLIT names the questions.
source "$(dirname "$0")/common.sh"

SPLIT=${SPLIT:-llava_vqav2_mscoco_test-dev2015}
answer model_vqa_loader "$DATA/vqav2/answers/$SPLIT/$NAME/merge.jsonl" --question-file "$DATA/vqav2/$SPLIT.jsonl" \
    --image-folder "$DATA/vqav2/test2015" "$@"

python scripts/convert_vqav2_for_submission.py --dir "$DATA/vqav2" --split "$SPLIT" --ckpt "$NAME"
truth=$DATA/vqav2/v2_${SPLIT#llava_vqav2_}_annotations.json
[ ! -f "$truth" ] || # only where the answers are known, as in the shapes world
    python -m llava.eval.eval_vqa --annotation-file "$truth" \
        --result-file "$DATA/vqav2/answers_upload/$SPLIT/$NAME.json"
