#!/usr/bin/env bash
# VizWiz: what blind people asked about their photos, for its server. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

answers=$DATA/vizwiz/answers/$NAME.jsonl
upload=$DATA/vizwiz/answers_upload/$NAME.json
answer model_vqa_loader "$answers" --question-file "$DATA/vizwiz/llava_test.jsonl" \
    --image-folder "$DATA/vizwiz/test" "$@"

python scripts/convert_vizwiz_for_submission.py --annotation-file "$DATA/vizwiz/llava_test.jsonl" \
    --result-file "$answers" --result-upload-file "$upload"
! grep -q '"answers"' "$DATA/vizwiz/test.json" || # only where the answers are known, as in the shapes world
    python -m llava.eval.eval_vqa --annotation-file "$DATA/vizwiz/test.json" --result-file "$upload"
