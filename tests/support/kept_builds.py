"""A plugin: the compiled step is built once in a run of the tests, however many homes need it.

A `cc` of its own, first in PATH, keeps each library by its flags and its sources. The processes of
pytest and the programs that tests start find it there.
"""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import pytest

CC = """\
#!/bin/sh
# cc FLAGS -o OUT FOLDER/step.c -lm is built once; anything else is the compiler's.
real={real} kept={kept}
for argument; do
    [ "$before" = -o ] && out=$argument || words="$words $argument"
    case $argument in */step.c) sources=${{argument%/*}} ;; esac
    before=$argument
done
[ -n "$sources" ] || exec "$real" "$@"
key=$( (echo "$words"; cat "$sources"/*.c "$sources"/*.h) | sha256sum | cut -c -16)
if [ ! -e "$kept/$key" ]; then
    "$real" "$@" || exit
    cp "$out" "$kept/$key.$$" && mv "$kept/$key.$$" "$kept/$key"
fi
exec cp "$kept/$key" "$out"
"""


def pytest_configure(config: pytest.Config) -> None:
    """Only in the first process: the others inherit its PATH."""
    real = shutil.which("cc")
    if hasattr(config, "workerinput") or real is None:
        return
    folder = Path(tempfile.mkdtemp(prefix="llmchat-builds-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    (folder / "kept").mkdir()
    script = CC.format(real=shlex.quote(real), kept=shlex.quote(str(folder / "kept")))
    (folder / "cc").write_text(script)
    (folder / "cc").chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
