#!/usr/bin/env bash
# Serve a model: a controller, one worker, the API in OpenAI's form and the web demo, until Ctrl-C.
#
#   bash scripts/serve.sh                                        # the bundled model
#   bash scripts/serve.sh --model-path DIR --adaptive-budget 0.5 # arguments go to the worker
#   CONTROLLER_PORT=8001 WORKER_PORT=8002 API_PORT=8003 WEB_PORT=8004 bash scripts/serve.sh
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=serve source scripts/venv.sh

host=${HOST:-127.0.0.1}
controller=http://$host:${CONTROLLER_PORT:-21001}
worker=http://$host:${WORKER_PORT:-21002}
web=http://$host:${WEB_PORT:-7860}
api=http://$host:${API_PORT:-21003}
pids=()

stop() {
    trap - EXIT INT TERM
    # The last one started stops first: the API answers its clients; the worker answers what it has taken in, and leaves
    # its controller.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Start a server and wait until it answers at an address.
start() { # NAME ADDRESS COMMAND...
    local name=$1 address=$2
    shift 2
    "$@" &
    local pid=$!
    pids+=("$pid")
    for ((tries = 0; tries < 1200; tries++)); do
        kill -0 "$pid" 2>/dev/null || { echo "the $name has ended; its messages are above" >&2; exit 1; }
        if python - "$address" <<'PYTHON'
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    opener.open(sys.argv[1], timeout=2)
except OSError:
    sys.exit(1)
PYTHON
        then
            return
        fi
        sleep 0.5
    done
    echo "the $name does not answer at $address" >&2
    exit 1
}

start controller "$controller/health" \
    python -m llava.serve.controller --host "$host" --port "${controller##*:}"
start worker "$worker/health" \
    python -m llava.serve.model_worker --host "$host" --port "${worker##*:}" --controller-address "$controller" "$@"
start API "$api/health" \
    python -m llava.serve.openai_api --host "$host" --port "${api##*:}" --controller-address "$controller"
start "web demo" "$web/" \
    python -m llava.serve.gradio_web_server --host "$host" --port "${web##*:}" --controller "$controller"

echo
echo "open $web"
echo "controller: $controller    worker: $worker    metrics: $worker/metrics"
echo "OpenAI's form: $api/v1"
echo "try: python -m llava.serve.test_message --controller-address $controller --message 'Describe yourself.'"
echo "Ctrl-C stops all."
wait -n "${pids[@]}" || true
echo "a server has ended" >&2
exit 1
