# Sourced by finetune_ada_heads.sh and finetune_ada_layers.sh: LLaVA's stage 2 with a scheduler of kind $SCHEDULER.
# The published recipe: 128 samples a step, learning rate 1e-5, one epoch of the 665k mix. recipe.sh says what the
# variables mean.
source "$(dirname "$0")/recipe.sh"

default DEEPSPEED scripts/zero3.json
default MODEL liuhaotian/llava-v1.5-7b
default TOWER ""
mix665k
default OUT "checkpoints/ada-llava-$SCHEDULER-v1.5-7b"

recipe \
    "${CHAT[@]}" \
    --per_device_train_batch_size 8 \
    --gradient_accumulation_steps 2 \
    --learning_rate 1e-5 \
    --save_steps 500
