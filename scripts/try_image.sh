#!/usr/bin/env bash
# Prove the image: build it with docker or podman (ENGINE), and run it as a stranger would, with a
# volume of its own. It has no compiler and no root, answers, keeps its files, and serves with a key.
#   scripts/try_image.sh [OPTION OF build]…        for example --build-arg PYTHON=3.12
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v docker || command -v podman)}
tag=llmchat:try volume=llmchat-try-$$ server=llmchat-try-$$
$engine build --tag $tag "$@" .
$engine volume create $volume > /dev/null
trap '{ $engine rm --force $server; $engine volume rm --force $volume; } > /dev/null 2>&1' EXIT
llmchat() { $engine run --rm --interactive --volume $volume:/home/llmchat ${OPTIONS:-} $tag "$@"; }

llmchat --version
OPTIONS="--entrypoint sh" llmchat -c '
    [ "$(id -un)" = llmchat ] || { echo "the user is $(id -un)"; exit 1; }
    ! command -v cc gcc clang zig || { echo "the image has a compiler"; exit 1; }'
llmchat pull --quiet smollm2
answer=$(echo "What is the capital of France? One word." | llmchat chat --quiet --temperature 0)
case $answer in *Paris*) ;; *) echo "the answer is not Paris: $answer"; exit 1 ;; esac
# Unavailable is raised if the wheel carries no library for this processor.
OPTIONS="--entrypoint python" llmchat -P -c "from pathlib import Path
from llmchat.engines.transformers.compiled.build import load_kernels
load_kernels(Path('built'))"

key=$(llmchat serve keys add try 2> /dev/null | grep -o 'llmchat-[^ ]*')
$engine run --detach --name $server --volume $volume:/home/llmchat --publish 127.0.0.1:8765:8000 \
    $tag serve --host 0.0.0.0 > /dev/null
for _ in $(seq 60); do curl -sf 127.0.0.1:8765/health > /dev/null && break; sleep 1; done
curl -sf 127.0.0.1:8765/v1/chat/completions -H "Authorization: Bearer $key" \
    -H "Content-Type: application/json" -d '{"model": "smollm2", "max_tokens": 20,
    "messages": [{"role": "user", "content": "What is the capital of France?"}]}' | grep -q Paris
echo "the image works: $($engine image inspect --format '{{.Size}}' $tag) bytes, $answer"
