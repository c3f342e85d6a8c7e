# Sourced: `launch FLAGS...` runs llava/train/train_mem.py, in as many processes as these variables say.
#
#   LAUNCHER=deepspeed|torchrun|python   what starts the processes (default: deepspeed); python starts one, and needs an
#                     empty DEEPSPEED=
#   NPROC=n           processes on a machine (default: one for each GPU)
#   HOSTFILE=file     several machines: lines `host slots=8`. deepspeed is started once, and reaches the others by ssh;
#                     torchrun is started on every machine of the file, and finds its line there
#   NNODES= NODE_RANK= MASTER_ADDR=      the same without a file, for torchrun under a scheduler (scripts/slurm)
#   MASTER_PORT=n     default: 29500; several runs on one machine need different ports
#   DRY_RUN=1         print the command and stop

launch() {
    local command=()
    case "${LAUNCHER:-deepspeed}" in
        deepspeed) command=(deepspeed ${HOSTFILE:+--hostfile "$HOSTFILE"} ${NPROC:+--num_gpus "$NPROC"}
            ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} ${MASTER_PORT:+--master_port "$MASTER_PORT"}) ;;
        torchrun) torchrun_command ;;
        python) python_command "$@" ;;
        *) stop "LAUNCHER is '$LAUNCHER'; expected deepspeed, torchrun or python" ;;
    esac
    command+=(llava/train/train_mem.py "$@")
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
        return
    fi
    require_device "$@"
    "${command[@]}"
}

torchrun_command() { # fills `command`
    command=(torchrun --nproc-per-node "${NPROC:-gpu}")
    if [ -n "${HOSTFILE:-}" ]; then
        [ -f "$HOSTFILE" ] || stop "HOSTFILE is '$HOSTFILE', which is no file; expected lines such as 'host1 slots=8'"
        local hosts
        mapfile -t hosts < <(awk 'NF && $1 !~ /^#/ {print $1}' "$HOSTFILE")
        NNODES=${#hosts[@]}
        MASTER_ADDR=${MASTER_ADDR:-${hosts[0]:-}}
        NODE_RANK=${NODE_RANK:-$(index_of_this_host "${hosts[@]}")}
        [ -n "$NODE_RANK" ] || stop "this machine, $(hostname), is not in $HOSTFILE; name its line, from 0, in NODE_RANK"
    fi
    if [ "${NNODES:-1}" = 1 ]; then
        [ -n "${MASTER_PORT:-}" ] && command+=(--master-port "$MASTER_PORT") || command+=(--standalone)
    else
        [ -n "${NODE_RANK:-}" ] && [ -n "${MASTER_ADDR:-}" ] || stop "NNODES is $NNODES; it needs NODE_RANK and MASTER_ADDR"
        command+=(--nnodes "$NNODES" --node-rank "$NODE_RANK"
            --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
    fi
}

python_command() { # FLAGS...: fills `command`
    [ "${NPROC:-1}" = 1 ] || stop "LAUNCHER is python, which starts one process, and NPROC is $NPROC"
    [[ " $* " != *" --deepspeed"* ]] || stop "LAUNCHER is python, and --deepspeed is given, which needs a launcher's" \
        "variables; set DEEPSPEED= to nothing, or LAUNCHER=torchrun NPROC=1"
    command=(python)
}

index_of_this_host() { # hosts: prints the index of this machine among them, from 0
    local index=0 host
    for host in "$@"; do
        if [ "$host" = "$(hostname)" ] || [ "$host" = "$(hostname -s)" ]; then
            echo "$index"
            return
        fi
        index=$((index + 1))
    done
}

require_device() { # the recipes are for GPUs; a CPU is used where a flag or a preset asks for it
    [[ " $* " == *" --use_cpu "* || " $* " == *" --no_cuda "* || -n "${HOSTFILE:-}" ]] && return
    python -c 'import torch' 2>/dev/null ||
        stop "'python' here has no torch; activate the environment of this project, or: pip install -e '.[train]'"
    python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        stop "no CUDA device here, and this recipe trains a 7B model on eight. On a CPU, the small setting runs:" \
            "PRESET=shapes bash $0"
}

stop() {
    echo "error: $*" >&2
    exit 1
}
