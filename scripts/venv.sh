# Sourced by the other scripts: `EXTRAS=extra,extra source scripts/venv.sh` leaves `python` with this project installed.
# An active virtual environment is used; without one, .venv beside the checkout is made. OWN_VENV=folder makes and uses
# that one, whatever is active. What is installed already is not installed again, so that the second run needs no
# network.
if [ -n "${OWN_VENV:-}" ] || [ -z "${VIRTUAL_ENV:-}" ]; then
    _venv=${OWN_VENV:-.venv}
    [ -x "$_venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$_venv"
    source "$_venv/bin/activate"
fi

_extras=${EXTRAS:+[$EXTRAS]}
_stamp=$VIRTUAL_ENV/.ada-llava-$(cat pyproject.toml constraints.txt <(echo "$PWD$_extras") | cksum | cut -d' ' -f1)
if [ ! -f "$_stamp" ]; then
    echo "installing ada-llava$_extras into $VIRTUAL_ENV" >&2
    if python -m pip --version >/dev/null 2>&1; then
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$_extras" || return
    elif command -v uv >/dev/null; then # its environments have no pip
        uv pip install --quiet -c constraints.txt -e ".$_extras" || return
    else
        echo "error: $VIRTUAL_ENV has no pip; python -m ensurepip brings it" >&2
        return 1
    fi
    touch "$_stamp"
fi
