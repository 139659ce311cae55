"""Every variable that the code reads is in docs/environment.md."""

import ast
import re
from pathlib import Path

import llmchat
from llmchat.settings import Options
from llmchat.settings.variables import OWN, STANDARD

PACKAGE = Path(llmchat.__file__).parent
OPTIONS = {f"LLMCHAT_{name.upper()}" for name in Options.__struct_fields__}
# Variables of terminals, which say what they can do, and of the system.
TERMINALS = {
    "TMUX", "STY", "TERM_PROGRAM", "VTE_VERSION", "KITTY_WINDOW_ID", "WT_SESSION",
    "KONSOLE_VERSION", "ALACRITTY_WINDOW_ID", "DOMTERM", "WAYLAND_DISPLAY", "DISPLAY", "SSH_TTY",
    "HOME", "PATH", "COMSPEC",
}  # fmt: skip
# Set for the programs that llmchat starts, and for libraries.
SET = {"HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS"}


def strings(path: Path) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_variable_of_llmchat_is_documented() -> None:
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for text in strings(path)
        # A flag of the C compiler is no variable.
        for name in re.findall(r"(?<!-D)\bLLMCHAT_[A-Z_]+[A-Z]", text)
    }
    assert named <= OPTIONS | set(OWN), named - OPTIONS - set(OWN)
    assert set(OWN) <= named, "documented, but read nowhere"


def test_every_variable_that_is_read_by_name_is_documented() -> None:
    read = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(
            r'(?:env|environ)(?:\.get\(|\[)"([A-Z][A-Z_0-9]+)"', path.read_text("utf-8")
        )
    }
    assert "HF_TOKEN" in read
    assert read <= {*OWN, *STANDARD} | TERMINALS | SET, read - {*OWN, *STANDARD}
