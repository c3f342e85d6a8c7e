# PRESET=shapes, sourced by recipe.sh: trains the bundled base model on shapes, on a CPU. SCENES= images to draw where
# there is no DATA yet, STEPS=, BATCH= samples a step and process, SAVE_STEPS=. NPROC=2 takes two processes.
default NPROC 1
if [ "$NPROC" = 1 ] && [ -z "${DEEPSPEED:-}" ]; then
    default LAUNCHER python
    default DEEPSPEED ""
else
    default LAUNCHER torchrun
    default DEEPSPEED scripts/zero2.json
    EXTRAS=${EXTRAS:+$EXTRAS,}train
fi
[[ $RECIPE == *lora ]] && EXTRAS=${EXTRAS:+$EXTRAS,}train
[[ $RECIPE == *qlora ]] && EXTRAS=$EXTRAS,quant
[ -n "${DRY_RUN:-}" ] || EXTRAS=${EXTRAS:-} source scripts/venv.sh

# New memory costs more than the arithmetic at this size: keep what was freed.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736

_rate=3e-4
if [ "$RECIPE" = finetune_token_scorer ]; then
    default MODEL ada/checkpoints/shapes-H
    default OUT "runs/$(basename "$MODEL")-scored"
    BATCH=${BATCH:-$((32 / NPROC))}
    _rate=3e-3
fi
default MODEL ada/checkpoints/shapes-base
default TOWER ""
default PROJECTOR ""
case $RECIPE in
    finetune_ada_*) default OUT "runs/shapes-$SCHEDULER" ;;
    *) default OUT "runs/shapes-${_first_llava:+first-}${RECIPE#finetune_}${SCHEDULER:+-$SCHEDULER}" ;;
esac
default REPORT_TO none
default PROJECTOR_TYPE mlp2x_gelu
default PREFIX 2
default RANK 2
_part=conversations
[ -z "${SCHEDULER:-}" ] && [ "$RECIPE" != finetune_token_scorer ] || _part=short # what it brings: playground/shapes/README.md
[ "$RECIPE" != pretrain ] || _part=captions
if [ -z "${DATA:-}" ]; then
    _folder=playground/data/shapes
    DATA=$_folder/$_part.json
    [ -f "$DATA" ] || [ -n "${DRY_RUN:-}" ] ||
        python -m playground.shapes.generate --out "$_folder" --scenes "${SCENES:-6000}"
fi
default IMAGES "$(dirname "$DATA")/images"

PRESET_FLAGS=(
    --use_cpu True
    --attn_implementation eager
    --mm_vision_select_layer -1
    --max_steps "${STEPS:-200}"
    --per_device_train_batch_size "${BATCH:-$((48 / NPROC))}"
    --gradient_accumulation_steps 1
    --learning_rate "$_rate"
    --adam_beta2 0.98
    --weight_decay 0.05
    --logging_steps 10
    --save_steps "${SAVE_STEPS:-50}"
    --model_max_length 512
    --gradient_checkpointing False
    --dataloader_num_workers 1
    --dataloader_persistent_workers True
)
