#!/usr/bin/env bash
# Prove the wheel in dist/: install it where nothing else is, with a home of its own, and ask the
# default model a question, without a compiler. `make release` runs this; the source tree is not on
# the path.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' llmchat/__init__.py)
wheel=$(ls "$root"/dist/llmchat-"$version"-*_"$(uname -m)".whl)
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
# The wheel carries the compiled step: it loads where PATH has no compiler, and nothing is built.
kernels="from pathlib import Path; from llmchat.engines.transformers.compiled.build import load_kernels
load_kernels(Path('built'))"
PATH=$scratch/venv/bin LLMCHAT_TRACEBACK=1 "$scratch/venv/bin/python" -P -c "$kernels"
[ ! -e built ] && ! find "$HOME" -name "step-*.so" | grep -q . \
    || { echo "the compiled step was built again"; exit 1; }
echo "the wheel works: $wheel"
