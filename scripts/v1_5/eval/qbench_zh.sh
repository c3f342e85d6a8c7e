#!/usr/bin/env bash
# Q-Bench in Chinese: bash qbench_zh.sh [dev|test]. common.sh says what the variables mean.
split=dev
if [[ ${1:-} != -* && $# -gt 0 ]]; then
    split=$1
    shift
fi
case $split in # as the questions' files are named
dev) questions=质衡-问答-验证集.json ;;
test) questions=质衡-问答-测试集.json ;;
*)
    echo "error: the split is '$split'; expected dev or test" >&2
    exit 2
    ;;
esac
CONV=${CONV:-llava_v1}
source "$(dirname "$0")/common.sh"

answers=$DATA/qbench/answers/zh_$split/$NAME.jsonl
answer model_vqa_qbench "$answers" --questions-file "$DATA/qbench/$questions" \
    --image-folder "$DATA/qbench/images_llvisionqa" --lang zh "$@"
cp "$answers" "$DATA/qbench/llvisionqa_zh_${split}_answers.jsonl"
echo "Answers to submit: $DATA/qbench/llvisionqa_zh_${split}_answers.jsonl"
