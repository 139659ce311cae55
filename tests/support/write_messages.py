"""Append messages, printing the id of each saved one: python write_messages.py PATH NAME COUNT."""

import sys
from pathlib import Path

from llmchat.conversation import Message
from llmchat.history import BranchWriter, History

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with History(path) as history:
    line = BranchWriter(history, history.begin("m"))
    for number in range(count):
        print(line.append(Message("user", f"{name}-{number}")), f"{name}-{number}", flush=True)
