#!/usr/bin/env bash
# The first LLaVA, stage 1 as pretrain.sh, for GPUs without bfloat16 and FlashAttention: in 32 bits, with PyTorch's own
# attention, four samples at a time. A preset has a device, an attention and batches already, and is left as it is.
flags=(
    --attn_implementation sdpa
    --bf16 False
    --tf32 False
    --per_device_train_batch_size 4
    --gradient_accumulation_steps 4
)
[ -z "${PRESET:-}" ] || flags=()
exec bash "$(dirname "$0")/pretrain.sh" ${flags[@]+"${flags[@]}"} "$@"
