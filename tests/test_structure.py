"""The house keeps its order: who may import whom, and what a quick command must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmchat

PACKAGE = Path(llmchat.__file__).parent
# A room may import rooms of lower levels, never one of its own level. A dotted name is a room of its own.
LEVELS = {
    "guard": 0, "engines.checkpoint_files": 4,
    "allowed": -1,
    "streams": -1, "plurals": -1, "signals": -1, "argv": 0, "errors": 0, "conversation": 0, "settings": 0, "memory": 0,
    "template_budget": -2, "template_values": -1, "template_sandbox": -0.5, "templates": 0, "programs": 0,
    "quoting": 0, "prompt": 1, "config_file": 1,
    "engines": 2,
    "presets": 3, "text_size": 3,
    "adjustable": 4, "window": 4, "summary": 5, "prompt_cache": 3,
    "hub": 5, "history": 5, "engines.tokens": 5, "engines.text": 5, "engines.loading": 5, "engines.decoding": 4,
    "engines.scripted": 6, "engines.transformers": 6,
    "engines.sse": 5, "engines.openai_api": 6, "engines.gguf": 6, "gguf_adapter": 6.3, "foreign": 6.5,
    "daemon": 3, "engines.remote": 6, "server": 9, "cli_serve": 11,
    "models": 7, "shelf": 8, "reading": 6, "chat": 7, "opened": 7.5, "opening": 8, "replay": 8, "doctor": 8, "merging": 8, "finetune": 8,
    "ui": 9, "deploy": 9, "evaluate.contenders": 9, "evaluate.progress": 9, "evaluate": 10, "compare": 10, "bench": 10, "cli_evaluate": 11, "cli_bench": 11,
    "oneshot": 10, "inspect_prompt": 10, "flags": 10, "cli_models": 11, "cli_presets": 11, "cli_finetune": 11, "cli_sessions": 11, "cli_data": 11, "cli_deploy": 11,
    "cli": 12,
}  # fmt: skip
# errors is a value that every room raises, and guard turns those of libraries into it.
EVERYWHERE = {"errors", "guard"}


def room_of(module: str) -> str:
    parts = module.split(".")[1:]
    dotted = ".".join(parts[:2])
    return dotted if dotted in LEVELS else parts[0] if parts else ""


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmchat"):
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("llmchat")}
    return {room_of(name) for name in found} - {"", "__version__"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__main__.py",) and path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_lower_rooms(path: Path) -> None:
    name = ".".join(("llmchat", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    own = room_of(name)
    assert own in LEVELS, f"{own} has no level"
    wrong = {other for other in imports_of(path) - EVERYWHERE - {own} if LEVELS[other] >= LEVELS[own]}
    assert not wrong, f"{own} imports {wrong}"


HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "huggingface_hub", "prompt_toolkit")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["presets", "-q"], ["presets"], ["sessions", "list"], ["ls"], ["config", "show"]], ids=" ".join
)
def test_a_quick_command_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom llmchat.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    env = {"HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr.strip() == "[]", done.stderr


def test_no_file_is_too_large_for_a_head() -> None:
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert max(sizes.values()) <= 400, max(sizes, key=lambda path: sizes[path])
