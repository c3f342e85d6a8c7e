# Sourced by the recipes in this folder and in scripts/: what they have in common. A recipe sets its defaults with
# `default`, then calls `recipe FLAGS...`. Later flags take precedence: common, the scheduler's, the recipe's, the
# preset's, the command line's.
#
#   MODEL=       checkpoint to start from              DATA=    training file (LLaVA's conversation JSON)
#   IMAGES=      its image folder                      OUT=     folder for the result
#   TOWER=       vision tower, a folder or a hub name  PROJECTOR=  mm_projector.bin of stage 1
#   PROJECTOR_TYPE=  mlp2x_gelu, linear, ...; without TOWER, the checkpoint's
#   DEEPSPEED=   its config; empty: none               REPORT_TO=  tensorboard, wandb or none
#   PRESET=      another setting: a file of presets/, by its name. PRESET=shapes is the bundled model on a CPU
#   SCHEDULER=   H or L: adds a scheduler of this kind, and trains under random budgets. PREFIX= layers that always run
#                (default: half), RANK= heads a unit (8), BUDGETS= low:high
#
# and LAUNCHER, NPROC, HOSTFILE, ... as launch.sh says. An empty TOWER leaves the checkpoint's own, with its layer and its
# projector; recipes that start from a LLaVA have it empty.
# Stopped and started again with the same OUT, a run resumes from its last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/v1_5/launch.sh

RECIPE=$(basename "$0" .sh)
COMMAND_LINE=("$@")
PRESET_FLAGS=()

default() { # NAME VALUE: unless the environment, or a preset, has set it, empty or not
    [ -n "${!1+set}" ] || printf -v "$1" %s "$2"
}

if [ -n "${PRESET:-}" ]; then
    [ -f "scripts/v1_5/presets/$PRESET.sh" ] ||
        stop "PRESET is '$PRESET'; expected one of $(cd scripts/v1_5/presets && echo *.sh | sed 's/\.sh//g'), or nothing for" \
            "the published recipe"
    source "scripts/v1_5/presets/$PRESET.sh"
fi

COMMON=(
    --mm_use_im_start_end False
    --mm_use_im_patch_token False
    --bf16 True
    --tf32 True
    --num_train_epochs 1
    --gradient_accumulation_steps 1
    --weight_decay 0.
    --warmup_ratio 0.03
    --lr_scheduler_type cosine
    --logging_steps 1
    --save_strategy steps
    --save_total_limit 1
    --model_max_length 2048
    --gradient_checkpointing True
    --dataloader_num_workers 4
    --lazy_preprocess True
)
CHAT=(--version v1 --image_aspect_ratio pad --group_by_modality_length True) # stage 2: conversations
LORA=(--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --learning_rate 2e-4)

projector_alone() { # of stage 1, which has no answers to train a scheduler on
    [ -z "${SCHEDULER:-}" ] || stop "SCHEDULER is '$SCHEDULER', but $0 trains the projector alone; give it to a recipe of stage 2"
}

mix665k() { # stage 2's data
    default DATA playground/data/llava_v1_5_mix665k.json
    default IMAGES playground/data
}

scheduler_flags() { # fills SCHEDULER_FLAGS
    SCHEDULER_FLAGS=()
    case ${SCHEDULER:-} in
        "") return ;;
        H | L) ;;
        *) stop "SCHEDULER is '$SCHEDULER'; expected H (attention heads and neurons), L (layers), or nothing for none" ;;
    esac
    default BUDGETS 0.5:1.0
    SCHEDULER_FLAGS=(
        --scheduler_type "$SCHEDULER"
        ${PREFIX:+--num_prefix_layers "$PREFIX"}
        ${RANK:+--scheduler_rank "$RANK"}
        --latency_budget "$BUDGETS"
    )
}

recipe() {
    default TOWER openai/clip-vit-large-patch14-336
    [ -z "$TOWER" ] || default PROJECTOR_TYPE mlp2x_gelu
    default PROJECTOR ""
    default REPORT_TO tensorboard
    scheduler_flags
    launch ${DEEPSPEED:+--deepspeed "$DEEPSPEED"} --model_name_or_path "$MODEL" --data_path "$DATA" \
        --image_folder "$IMAGES" ${TOWER:+--vision_tower "$TOWER" --mm_vision_select_layer -2} \
        ${PROJECTOR_TYPE:+--mm_projector_type "$PROJECTOR_TYPE"} \
        ${PROJECTOR:+--pretrain_mm_mlp_adapter "$PROJECTOR"} --output_dir "$OUT" --report_to "$REPORT_TO" \
        "${COMMON[@]}" ${SCHEDULER_FLAGS[@]+"${SCHEDULER_FLAGS[@]}"} "$@" \
        ${PRESET_FLAGS[@]+"${PRESET_FLAGS[@]}"} ${COMMAND_LINE[@]+"${COMMAND_LINE[@]}"}
}
