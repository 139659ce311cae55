"""The house keeps its order: who may import whom, and what a quick command must not load."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import llmchat

PACKAGE = Path(llmchat.__file__).parent
REPOSITORY = PACKAGE.parent

# The house from the ground up. A room imports rooms of lower tiers; within a tier, those of an
# "ordered" one import the rooms named before them, and those of a "separate" one none at all.
TIERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "values": (
        "ordered",
        (
            "errors", "plugins", "parse_guard", "process", "gguf_file", "quantisation",
            "conversation", "structure", "calls", "settings", "memory_estimate", "sqlite_file",
            "output",
        ),
    ),
    "text": (
        "ordered",
        (
            "chat_template", "thought_marks", "tool_records", "written_tools", "written_prompt",
            "prompt", "engines",
            "engines.capabilities", "engines.stream_filters", "engines.channel_filter",
            "engines.bounded_count",
            "actions", "found_passages", "presets", "thinking", "tool_syntax", "live_settings",
            "window", "summary", "reply_parser", "roles",
        ),
    ),
    "parts of engines": (
        "ordered",
        (
            "engines.parameter_names", "engines.sse", "engines.bounded_cache",
            "engines.checkpoint_files",
            "engines.tokenizer", "engines.gbnf", "engines.guide",
        ),
    ),
    "memory": ("separate", ("memory",)),
    "libraries": (
        "separate",
        (
            "engines.transformers", "engines.gguf", "engines.openai_api", "engines.scripted",
            "engines.loading_engine", "background", "hub", "history",
            "tools",
        ),
    ),
    "models": ("ordered", ("models", "docs_material", "stored_conversation", "tool_turn", "reply",
            "dropped_turns", "acting", "answer_record", "chat", "beginning", "answer_form",
            "answer_report", "attachments")),
    "front ends": ("ordered", ("server", "finetune", "deploy", "evaluate", "bench", "batches",
            "api", "ui", "connect")),
    "commands": ("separate", ("commands",)),
    "program": ("separate", ("cli",)),
}  # fmt: skip
PLACES = {
    room: (floor, place if order == "ordered" else 0)
    for floor, (order, rooms) in enumerate(TIERS.values())
    for place, room in enumerate(rooms)
}


def room_of(module: str) -> str:
    """`llmchat.engines.gguf.llama` is in the room `engines.gguf`."""
    parts = module.split(".")[1:]
    dotted = ".".join(parts[:2])
    return dotted if dotted in PLACES else parts[0] if parts else ""


def imports_of(path: Path) -> set[str]:
    """The dotted names that a file imports from llmchat, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmchat"):
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("llmchat")}
    return found - {"llmchat.__version__"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def modules() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__main__.py" and path != PACKAGE / "__init__.py"
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_lower_rooms(path: Path) -> None:
    own = room_of(name_of(path))
    assert own in PLACES, f"{own} has no tier"
    others = {room_of(name) for name in imports_of(path)} - {own}
    wrong = {other for other in others if PLACES[other] >= PLACES[own]}
    assert not wrong, f"{own} imports {wrong}"


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest imports them by name alone."""
    files = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert not [name for name, count in files.items() if count > 1]


SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "docs", "scripts")
    for path in (REPOSITORY / folder).glob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_scripts_import_from_the_package_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llmchat":
            module = importlib.import_module(node.module or "")
            for name in (one.name for one in node.names):
                is_package = hasattr(module, "__path__")
                assert hasattr(module, name) or (
                    is_package and importlib.util.find_spec(f"{node.module}.{name}")
                ), f"line {node.lineno}: {node.module} has no {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {name_of(path): path for path in modules()}
    graph = {
        name: {other if other in known else other.rpartition(".")[0] for other in imports_of(path)}
        for name, path in known.items()
    }
    circles = [
        sorted({name, other})
        for name in graph
        for other in graph[name]
        if name != other and name in _reached(graph, other)
    ]
    assert not circles, circles


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        for other in graph.get(waiting.pop(), set()) - found:
            found.add(other)
            waiting.append(other)
    return found


# Only the World reads the process's environment, streams and clock; these modules may, too.
READS_THE_PROCESS = {
    "settings.world": "makes the World",
    "plugins.printing": "redirects the stream that plugins print to",
    "process.startup": "repairs the streams and configures libraries before there is a World",
    "bench.peer_protocol": "runs in a process of its own, also in a Python without llmchat",
    "engines.gguf": "passes LLMCHAT_TRACEBACK on to llama.cpp",
    "engines.gguf.probe": "runs in a process of its own",
    "tools.python.sandbox": "runs in a process of its own",
    "tools.web.worker": "runs in a process of its own",
    "memory.readers.worker": "runs in a process of its own",
    "engines.gguf.llama": "compares the age of files that other processes left with the clock",
    "engines.openai_api.connection": "a Retry-After header may be a date",
    "engines.transformers.compiled.build": "a compiler is called as a build tool would: CC, PATH",
    "chat_template.values": "`strftime_now` of chat templates",
}
_OF_THE_PROCESS = {
    ("os", "environ"), ("os", "environb"), ("os", "getenv"),
    ("sys", "stdin"), ("sys", "stdout"), ("sys", "stderr"),
    ("datetime", "now"), ("datetime", "utcnow"), ("date", "today"), ("datetime", "today"),
    ("shutil", "get_terminal_size"), ("World", "real"),
}  # fmt: skip


def reads_of_the_process(path: Path) -> set[str]:
    """What a file takes from the process itself: `os.environ`, `time.time()`, `World.real()`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("time"), attr="time")):
                # `time.time` without a call is the default of an argument.
                found.add("time.time()")
            case ast.Attribute(value=ast.Name(module) | ast.Attribute(attr=module), attr=name):
                if (module, name) in _OF_THE_PROCESS:
                    found.add(f"{module}.{name}")
            case ast.ImportFrom(module="os" | "sys" | "time" as module, names=names):
                found |= {f"from {module} import {name.name}" for name in names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_world_reads_the_process(path: Path) -> None:
    name = name_of(path).removeprefix("llmchat.")
    allowed = {"World.real"} if name in ("cli", "bench.worker", "api.place") else set()
    read = reads_of_the_process(path) - allowed
    if name in READS_THE_PROCESS:
        assert read, f"{name} reads nothing of the process: take it off the list"
    else:
        assert not read, f"{name} reads {read}; take it from the World"


HEAVY = (
    "torch", "transformers", "peft", "bitsandbytes", "huggingface_hub", "prompt_toolkit", "jinja2",
)  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["presets", "-q"],
        ["presets"],
        ["sessions", "list"],
        ["ls"],
        ["config", "show"],
    ],
    ids=" ".join,
)
def test_a_quick_command_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom llmchat.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    env = {"HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr.strip() == "[]", done.stderr


# Vendored and minified: not ours to split.
SOURCES = sorted(
    path
    for suffix in ("py", "c", "h", "js")
    for path in PACKAGE.rglob(f"*.{suffix}")
    if "vendor" not in path.parts
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_source_file_is_too_large_or_too_wide(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 400
    # ruff sees to Python, where a URL may be longer.
    wide = [line for line in lines if len(line) > 100 and path.suffix != ".py"]
    assert not wide


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_files_that_the_contributors_pages_name_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[a-z_]+\.(?:py|md|toml|txt))`", text))
    places = (REPOSITORY, PACKAGE, PACKAGE / "engines" / "transformers")
    missing = {
        name
        for name in named
        if "NAME" not in name and not any((place / name).exists() for place in places)
    }
    assert named and not missing
