"""Render the attacks named by a JSON list on stdin.

Prints a JSON list for each: name, CPU seconds, peak memory of the process in MiB, whether the
messages were changed, and the outcome in words.
"""

import json
import re
import sys
import time
from pathlib import Path

from llmchat import chat_template
from llmchat.errors import Mismatch
from support.template_attacks import ATTACKS

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def main() -> None:
    messages = [dict(message) for message in MESSAGES]
    # So that the import of jinja2 counts for no attack.
    chat_template.run("{{ messages[0].content }}", {"messages": messages}, "first")
    for name in json.load(sys.stdin):
        started = time.thread_time()
        outcome = render(name, messages)
        seconds = round(time.thread_time() - started, 2)
        print(json.dumps([name, seconds, peak_memory(), messages != MESSAGES, outcome]), flush=True)


def render(name: str, messages: list[dict[str, str]]) -> str:
    try:
        text = chat_template.run(ATTACKS[name], {"messages": messages}, name)
    except Mismatch as error:
        return error.message
    return f"{len(text):,} characters"


def peak_memory() -> int:
    """In MiB. Not ru_maxrss, which starts with the memory of the process that forked this one."""
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak
    return round(int(peak[1]) / 1024)


if __name__ == "__main__":
    main()
