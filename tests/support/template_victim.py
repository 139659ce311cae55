"""Render the attacks whose names come as a JSON list on stdin; a line of JSON for each: its seconds, the process's peak memory, what was said."""

import json
import re
import sys
import time
from pathlib import Path

from llmchat import chat_template
from llmchat.errors import Mismatch
from support.template_attacks import ATTACKS

messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
chat_template.run("{{ messages[0].content }}", {"messages": messages}, "first")
for name in json.load(sys.stdin):
    started = time.thread_time()
    try:
        said = f"{len(chat_template.run(ATTACKS[name], {'messages': messages}, name)):,} characters"
    except Mismatch as error:
        said = error.message
    # Not ru_maxrss, which begins with the memory of the process that forked this one.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    changed = messages != [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
    ]
    print(
        json.dumps([name, round(time.thread_time() - started, 2), round(peak), changed, said]),
        flush=True,
    )
