#!/usr/bin/env bash
# Chat with the bundled model about the bundled picture, at half the language model's compute.
#
#   bash scripts/demo.sh                          # type questions; /help lists the commands
#   bash scripts/demo.sh < /dev/null              # one question, one answer
#   bash scripts/demo.sh --latency-budget 0.85    # arguments go to the chat
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh

exec python -m llava.serve.cli --latency-budget 0.5 "$@"
