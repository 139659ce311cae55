"""Streams answers inside tmux, for the tests: python drive_tmux.py ANSWERS.json.

An answer is a list of steps; a step is a text or a window size [columns, rows].
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from llmchat.ui import markdown_renderer

TMUX = ["tmux", "-S", os.environ["TMUX"].split(",")[0]]


def resize(columns: int, rows: int) -> None:
    """Resize the window and wait until the terminal has the size, which tmux passes on late."""
    subprocess.run([*TMUX, "resize-window", "-x", str(columns), "-y", str(rows)], check=True)
    while tuple(os.get_terminal_size()) != (columns, rows):
        time.sleep(0.005)


markdown_renderer._REDRAW_SECONDS = 0.0
for steps in json.loads(Path(sys.argv[1]).read_text("utf-8")):
    renderer = markdown_renderer.MarkdownRenderer(sys.stdout, lambda: tuple(os.get_terminal_size()))
    for step in steps:
        renderer.feed(step) if isinstance(step, str) else resize(*step)
    renderer.finish()
    print("END OF ANSWER", flush=True)
subprocess.run([*TMUX, "wait-for", "-S", "drawn"], check=True)
sys.stdin.read()
