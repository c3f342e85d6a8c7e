#!/usr/bin/env bash
# LLaVA-Bench: long answers, compared with a reference's by a judge. common.sh says what the variables mean.
source "$(dirname "$0")/common.sh"

bench=$DATA/llava-bench-in-the-wild
answers=$bench/answers/$NAME.jsonl
answer model_vqa "$answers" --question-file "$bench/questions.jsonl" --image-folder "$bench/images" "$@"

if judge_is_there; then
    python -m llava.eval.eval_gpt_review_bench --question "$bench/questions.jsonl" --context "$bench/context.jsonl" \
        --answer-list "$bench/answers_gpt4.jsonl" "$answers" --output "$bench/reviews/$NAME.jsonl" \
        --model "${JUDGE:-gpt-4-0314}"
    python -m llava.eval.summarize_gpt_review -f "$bench/reviews/$NAME.jsonl"
fi
