# PRESET=easy-vqa, sourced by recipe.sh: the bundled H model learns the pictures and questions of the package easy-vqa on
# a CPU, from random budgets, as the shapes preset learns shapes; its variables are there, and BUDGETS= low:high here.
EXTRAS=easy-vqa
_given_data=${DATA:-}
default DATA playground/data/easy-vqa/conversations.json
default MODEL ada/checkpoints/shapes-H
default OUT runs/easy-vqa
default STEPS 600
default BATCH 24
default SAVE_STEPS 100
source scripts/v1_5/presets/shapes.sh

# test.jsonl is what the converter writes last.
[ -n "$_given_data" ] || [ -n "${DRY_RUN:-}" ] || [ -f "$(dirname "$DATA")/test.jsonl" ] ||
    python -m playground.easy_vqa.convert --out "$(dirname "$DATA")"

PRESET_FLAGS+=(
    --latency_budget "${BUDGETS:-0.5:1.0}"
    --learning_rate 1e-3
)
