#!/usr/bin/env bash
# Serve a model: a controller, one worker, the OpenAI-compatible API and the web demo, until Ctrl-C.
#
#   bash scripts/serve.sh                                        # the bundled model; --model shapes: the tiny one
#   bash scripts/serve.sh --model-path DIR --adaptive-budget 0.5 # arguments go to the worker
#   CONTROLLER_PORT=8001 WORKER_PORT=8002 API_PORT=8003 WEB_PORT=8004 bash scripts/serve.sh
#
# A port of 0 is a free one. HOST is the address to listen at, by default 127.0.0.1; with 0.0.0.0, every network, the
# worker's port is a number. Each server logs to a file in LOG_DIR, by default a new temporary folder.
set -euo pipefail
set -m # a group for each server: Ctrl-C is for this script alone, as a server ends at once at its second signal
cd "$(dirname "$0")/.."
EXTRAS=serve
source scripts/bundled_model.sh

host=${HOST:-127.0.0.1}
controller_port=${CONTROLLER_PORT:-21001} worker_port=${WORKER_PORT:-21002}
api_port=${API_PORT:-21003} web_port=${WEB_PORT:-7860}
case $host in # these listen at every network, and are no address to ask: the servers find each other on this machine
    0.0.0.0) loopback=127.0.0.1 ;;
    :: | "[::]") loopback="[::1]" ;;
    *) loopback= ;;
esac
WORKER_FLAGS=()
if [ -n "$loopback" ]; then
    if [ "$worker_port" = 0 ]; then
        echo "HOST is $host and WORKER_PORT is 0; with this HOST give WORKER_PORT a number, such as 21002" >&2
        exit 2
    fi
    WORKER_FLAGS=(--worker-address "http://$loopback:$worker_port")
fi
logs=${LOG_DIR:-$(mktemp -d -t llava-serve.XXXXXX)}
mkdir -p "$logs"
pids=()

stop() {
    trap - EXIT
    trap 'for _ in 1 2; do kill -TERM "${pids[@]}" 2>/dev/null || true; sleep 0.3; done' INT TERM # the second time
    # In reverse order: the API answers its clients; the worker answers the requests that it accepted, and unregisters
    # from its controller.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Print the address that a server's log names.
address_in() { # LOG
    sed -nE '/running on http:/{s/.*(http:[^ ]+).*/\1/p;q}' "$1"
}

# Start a server and wait until its log says at which address it answers; set the variable NAME to this address.
start() { # NAME COMMAND...
    local name=$1 log=$logs/$1.log pid address
    shift
    : >"$log"
    PYTHONUNBUFFERED=1 "$@" >>"$log" 2>&1 &
    pid=$!
    pids+=("$pid")
    while address=$(address_in "$log"); [ -z "$address" ]; do
        kill -0 "$pid" 2>/dev/null || { echo "the $name has ended; its log is $log:" >&2; cat "$log" >&2; exit 1; }
        sleep 0.2
    done
    printf -v "$name" %s "$address"
}

# Stop before anything is started where a port is taken, such as by another run of this script.
python -m llava.serve.hosting.free_ports --host "$host" "CONTROLLER_PORT=$controller_port" "WORKER_PORT=$worker_port" \
    "API_PORT=$api_port" "WEB_PORT=$web_port" || exit 1

start controller python -m llava.serve.controller --host "$host" --port "$controller_port"
[ -z "$loopback" ] || controller=http://$loopback:${controller##*:}
start worker python -m llava.serve.model_worker --host "$host" --port "$worker_port" \
    ${WORKER_FLAGS[@]+"${WORKER_FLAGS[@]}"} --controller-address "$controller" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
start api python -m llava.serve.openai_api --host "$host" --port "$api_port" --controller-address "$controller"
start web python -m llava.serve.gradio_web_server --host "$host" --port "$web_port" --controller "$controller"

echo "web demo:   $web"
echo "OpenAI API: $api/v1"
echo "controller: $controller"
echo "worker:     $worker    metrics: $worker/metrics"
echo "logs:       $logs"
echo "try: python -m llava.serve.test_message --controller-address $controller --message 'Describe yourself.'"
echo "Ctrl-C stops all."
wait -n "${pids[@]}" || true
echo "a server has ended; see its log in $logs" >&2
exit 1
