"""Ask in a session from another process: python ask_in_session.py PATH SESSION NAME COUNT [hang].

It prints `open`, waits for a line on stdin, asks COUNT questions, and prints the session it ended
in and its notices. hang: never answer.
"""

import json
import signal
import sys
from collections.abc import Generator
from pathlib import Path

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.prompt import Prompt


class _Hanging(ScriptedEngine):
    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        print("asked", flush=True)
        while True:
            signal.pause()
            yield Chunk("")


path, session, name, count = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
replies = [f"answer to {name} {number}" for number in range(count)]
engine = _Hanging() if "hang" in sys.argv else ScriptedEngine(replies, delay_s=0.002)
with History(path) as history:
    chat = Chat(
        replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling()),
        engine,
        history,
        session=session,
    )
    print("open", flush=True)
    sys.stdin.readline()
    notes = []
    for number in range(count):
        for _ in chat.send(f"question {name} {number}"):
            pass
        notes.append(chat.take_notice())
    print(
        json.dumps(
            {"name": name, "session": chat.session, "notes": [note for note in notes if note]}
        )
    )
