"""What a type checker sees of `import llmchat`."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import llmchat
from pydantic import BaseModel

class City(BaseModel):
    name: str

async def main() -> None:
    async with llmchat.open_async("m") as twin:
        reveal_type((await twin.ask("?", schema=City)).value)
        reveal_type([piece async for piece in twin.say("?")])

chat = llmchat.open("m")
reveal_type(chat.ask("?").value)
reveal_type(chat.ask("?", schema=City).value)
reveal_type(llmchat.open("m", schema=list[int]).ask("?").value)
reveal_type(llmchat.batch(["?"], chat, schema=City)[0].value)
reveal_type(llmchat.pull("m"))
reveal_type([piece for piece in chat.say("?")])
chat.ask(3)
chat.aks("?")
"""
# None of these types is in the signatures of the package, and reading them takes a minute.
CONFIG = """
[tool.mypy]
strict = true
[[tool.mypy.overrides]]
module = ["torch.*", "transformers.*", "numpy.*"]
follow_imports = "skip"
"""
SEEN = [
    "City", "list[str]", "None", "City", "list[int]", "City | None", "Plan", "list[str]",
]  # fmt: skip


@pytest.mark.slow
def test_mypy_infers_the_type_of_value_and_finds_errors(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--no-incremental", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    revealed = [line.split('"')[1] for line in lines if "Revealed type" in line]
    shown = [one.replace("builtins.", "").replace("program.", "") for one in revealed]
    assert [one.rpartition(".")[2] if "[" not in one else one for one in shown] == SEEN
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 2 and "call-overload" in errors[0] and "aks" in errors[1]
