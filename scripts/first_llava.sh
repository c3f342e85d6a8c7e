# Sourced by the recipes of the first LLaVA in this folder: Vicuna 1.3 or Llama 2, CLIP at 224 pixels, a linear projector,
# images that are cropped to a square. v1_5/recipe.sh says what the variables mean; in addition:
#
#   MODEL_VERSION=   language model: its folder in checkpoints/, and a part of the results' names
#   PROMPT_VERSION=  its conversation template: v1 for Vicuna, llava_llama_2 for Llama 2
_first_llava=1
source "$(dirname "$0")/v1_5/recipe.sh"

default MODEL_VERSION vicuna-v1-3-7b
default PROMPT_VERSION v1
default DEEPSPEED scripts/zero2.json
default TOWER openai/clip-vit-large-patch14
default PROJECTOR_TYPE linear

first_llava() { # FLAGS...: stage 2
    default MODEL "checkpoints/$MODEL_VERSION"
    default PROJECTOR "checkpoints/llava-$MODEL_VERSION-pretrain/mm_projector.bin"
    default IMAGES playground/data/coco/train2017
    recipe \
        --version "$PROMPT_VERSION" \
        --per_device_train_batch_size 16 \
        --learning_rate 2e-5 \
        --save_steps 50000 \
        "$@"
}
