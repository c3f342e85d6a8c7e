#!/usr/bin/env bash
# Chat with the bundled model about the bundled picture, at half the language model's compute (scripts/bundled_model.sh).
#
#   bash scripts/demo.sh                          # type questions; /help lists the commands
#   bash scripts/demo.sh < /dev/null              # one question, one answer
#   bash scripts/demo.sh --latency-budget 0.85    # arguments go to the chat
#   bash scripts/demo.sh --model shapes           # the tiny model; the default's language model is fetched once
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/bundled_model.sh
[ "$BUNDLED" = own ] || [[ " ${ARGUMENTS[*]} " == *" --image-file"* ]] || ARGUMENTS+=(--image-file playground/smol/demo.png)

exec python -m llava.serve.cli --latency-budget 0.5 ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
