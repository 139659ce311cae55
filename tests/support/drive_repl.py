"""Run a REPL with the scripted engine for tests in a pseudo-terminal: drive_repl.py HOME."""

import sys
import time
from pathlib import Path

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.memory.facts import Facts
from llmchat.memory.of_chat import ChatMemory
from llmchat.models.opener import ModelOpener
from llmchat.presets import find, get_format
from llmchat.process.signals import orderly_end
from llmchat.settings import World
from llmchat.ui.repl import run

home = Path(sys.argv[1])
world = replace(
    World.real(),
    state=home / "state",
    data=home / "data",
    config=home / "config",
    cache=home / "cache",
)
long = "word " * 400 + "END"
with orderly_end(), History(world.history_file) as history:
    answers = ["first answer", long, "third answer", "fourth answer"]
    if "--memory" in sys.argv:
        answers[1] = '["The user lives in Graz.", "The user has a dog."]'
    engine = ScriptedEngine(answers, context=4000, delay_s=0.01)
    loading = LoadingEngine(lambda: time.sleep(60) or engine, "SmolLM2")
    preset = replace(find("smollm2"), format=get_format("chatml"))
    chat = Chat(preset, loading if "--loading" in sys.argv else engine, history)
    if "--memory" in sys.argv:
        chat.memory = ChatMemory(Facts.of(world), "propose")
    code = run(
        chat, world, ModelOpener(world, {}), plain="--plain" in sys.argv, vi="--vi" in sys.argv
    )
    print("LEFT WITH", code, [(m.role, len(m.text)) for m in chat.conversation.messages])
sys.exit(code)
