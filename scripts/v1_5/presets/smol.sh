# PRESET=smol, sourced by recipe.sh: SmolLM2-135M on shapes, on two CPU cores or a GPU. In this order:
#
#   PRESET=smol bash scripts/v1_5/pretrain.sh              # fetches the language model, draws the data, trains a tower
#   PRESET=smol bash scripts/v1_5/finetune.sh              # adapters and the projector; then merged
#   PRESET=smol bash scripts/v1_5/finetune_ada_heads.sh    # adapters and a scheduler, on the merged model; _layers too
#
# With two cores, two processes of one thread take less time than one of two threads:
# OMP_NUM_THREADS=1 NPROC=2 LAUNCHER=torchrun BATCH=4, half of the samples for each.
#
# SMOL= folder of all that is made. SCENES=, TOWER_STEPS=, STEPS=, BATCH= samples a step, SAVE_STEPS=. LORA_R=0 trains in full.
# IMAGE_TOKEN_MAXIMUM= the share of the image tokens that stages 1 and 2 read at most; empty: half of the samples read all.
default NPROC 1
default LAUNCHER python
default DEEPSPEED ""
EXTRAS=${EXTRAS:+$EXTRAS,}smol
[ -n "${DRY_RUN:-}" ] || EXTRAS=$EXTRAS source scripts/venv.sh

# New memory costs as much as arithmetic on a CPU: keep what was freed, in huge pages.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736 THP_MEM_ALLOC_ENABLE=1

default SMOL runs/smol
_data=$SMOL/data
_step() { [ -n "${DRY_RUN:-}" ] || [ -e "$1" ] || "${@:2}"; } # RESULT COMMAND...: unless the result is there

_base=$SMOL/language # in a dry run, which fetches nothing
[ -n "${DRY_RUN:-}" ] || _base=$(python -m playground.smol.base)
_step "$SMOL/chat.json" python -m playground.smol.chat --model "$_base" --out "$SMOL"
_step "$_data/test.jsonl" python -m playground.smol.generate --out "$_data" --scenes "${SCENES:-60000}" --chat "$SMOL/chat.json"
_step "$SMOL/tower/model.safetensors" python -m playground.shapes.tower --out "$SMOL/tower" \
    --side 168 --patch 14 --width 160 --layers 5 --steps "${TOWER_STEPS:-3200}"
_step "$SMOL/projector/mm_projector.bin" python -m playground.smol.projector --tower "$SMOL/tower" --model "$_base" \
    --out "$SMOL/projector/mm_projector.bin"

default IMAGES "$_data/images"
default REPORT_TO none
default PROJECTOR_TYPE mlp2x_gelu
_lora=(--lora_enable True --lora_dropout 0.)
# A quarter of the image tokens holds every thing's centre: half of the time, and learned as fast.
default IMAGE_TOKEN_MAXIMUM 0.25
_quarter=(--image_token_dropout 0.25 ${IMAGE_TOKEN_MAXIMUM:+--image_token_maximum "$IMAGE_TOKEN_MAXIMUM"}
    --group_by_modality_length True)
_rank() { [ "$1" = 0 ] || _flags+=("${_lora[@]}" --lora_r "$1" --lora_alpha "$((2 * $1))"); }
case $RECIPE in
    pretrain) # captions; the adapters learn, too: to name what is where takes other attention than text
        default MODEL "$_base"
        default TOWER "$SMOL/tower"
        default PROJECTOR "$SMOL/projector/mm_projector.bin"
        default DATA "$_data/captions.json"
        default OUT "$SMOL/pretrain"
        default BATCH 8
        _flags=(--max_steps "${STEPS:-400}" --learning_rate 1e-3 --tune_mm_mlp_adapter False --image_aspect_ratio pad "${_quarter[@]}")
        _rank "${LORA_R:-8}"
        ;;
    finetune)
        [ "${LORA_R:-8}" != 0 ] || default MODEL "$SMOL/pretrain"
        default MODEL "$_base"
        default TOWER "$SMOL/tower"
        default PROJECTOR ""
        default DATA "$_data/conversations.json"
        default OUT "$SMOL/llava-lora${SCHEDULER:+-$SCHEDULER}"
        default BATCH 8
        _flags=(--max_steps "${STEPS:-3000}" --learning_rate 1e-3 "${_quarter[@]}")
        _rank "${LORA_R:-8}"
        [ "${LORA_R:-8}" = 0 ] || _flags+=(--lora_weight_path "$SMOL/pretrain")
        ;;
    finetune_token_scorer) # of a model with a scheduler, in full: MODEL=
        default TOWER ""
        default PROJECTOR ""
        default DATA "$_data/short.json"
        _flags=(--learning_rate 1e-3)
        ;;
    *)
        if [ -z "${MODEL:-}" ] && [ "${LORA_R:-3}" != 0 ]; then
            MODEL=$SMOL/llava # what scripts/merge_lora_weights.py makes of stage 2
            [ -n "${DRY_RUN:-}" ] || [ ! "$SMOL/llava-lora/adapter_model.safetensors" -nt "$MODEL/model.safetensors" ] ||
                [ ! -e "$MODEL" ] || stop "$MODEL was merged before $SMOL/llava-lora was trained to its end; remove it, and" \
                "what was trained on it"
            _step "$MODEL/model.safetensors" python scripts/merge_lora_weights.py --model-path "$SMOL/llava-lora" \
                --model-base "$_base" --save-model-path "$MODEL"
        fi
        default MODEL "$SMOL/llava-lora" # trained in full, it needs no merging
        default TOWER ""
        default PROJECTOR ""
        default DATA "$_data/short.json"
        default OUT "$SMOL/${SCHEDULER:-$RECIPE}"
        default PREFIX 6
        default RANK 1
        _order=$SMOL/neuron_order.safetensors
        _step "$_order" python -m ada.train.importance --model-path "$MODEL" --data-path "$DATA" --image-folder "$IMAGES" --out "$_order"
        [ "${SCHEDULER:-H}" = L ] && default BUDGETS 0.7:1.0 || default BUDGETS 0.6:1.0
        # A low rate and little noise keep what the scheduler starts with.
        _flags=(--max_steps "${STEPS:-600}" --learning_rate 1e-3 --scheduler_lr 5e-5 --scheduler_temperature 0.4:0.05
            --budget_sampling sandwich --neuron_order "$_order" --freeze_mm_mlp_adapter True "${_quarter[@]}")
        _rank "${LORA_R:-3}"
        ;;
esac

PRESET_FLAGS=(
    --mm_vision_select_layer -1
    --per_device_train_batch_size "${BATCH:-16}"
    --adam_beta2 0.98
    --logging_steps 10
    --save_steps "${SAVE_STEPS:-100}"
    --model_max_length 1024
    --version qwen_2 # ChatML, as the language model has it
    --gradient_checkpointing False
    --dataloader_persistent_workers True
    --attn_implementation sdpa # flash attention is an extra
    "${_flags[@]}"
)
python -c 'import sys, torch; sys.exit(torch.cuda.is_available())' 2>/dev/null &&
    PRESET_FLAGS+=(--use_cpu True --attn_implementation eager --compile_layers True --dataloader_num_workers 1)
true
