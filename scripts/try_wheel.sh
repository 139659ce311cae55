#!/usr/bin/env bash
# Prove the wheel in dist/: install it where nothing else is, with a home of its own, and ask the
# default model a question. `make release` runs this; the source tree is not on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' llmchat/__init__.py)
wheel=$(ls "$root"/dist/llmchat-"$version"-*.whl)
grep -q "^## $version" CHANGELOG.md || { echo "CHANGELOG.md has no section for $version"; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip --disable-pip-version-check install --quiet \
    --constraint constraints.txt "$wheel"
export HOME=$scratch/home
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_CACHE_HOME
mkdir "$HOME"
cd "$scratch"
PATH=$scratch/venv/bin:$PATH

[ "$(llmchat --version)" = "llmchat $version" ]
[ "$(llmchat presets --quiet | wc -l)" -ge 100 ]
llmchat pull --quiet smollm2
answer=$(echo "What is the capital of France? One word." | llmchat chat --quiet --temperature 0)
echo "llmchat $version answers: $answer"
case $answer in *Paris*) ;; *) echo "that is not Paris"; exit 1 ;; esac
# The compiled step comes as C sources: building it proves that they are in the wheel.
llmchat doctor --help >/dev/null
ls "$HOME"/.cache/llmchat/*/*.so >/dev/null 2>&1 || find "$HOME/.cache/llmchat" -name "*.so" | grep -q . \
    || { echo "the compiled step was not built"; exit 1; }
echo "the wheel works: $wheel"
