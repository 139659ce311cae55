"""What a plugin of each kind adds, through the commands and the chat of a user."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.plugin_packages import Packages
from support.repl import make_repl, type_in
from support.worlds import make_world

from llmchat import plugins
from llmchat.cli import main
from llmchat.errors import ModelNotFound
from llmchat.models.embedding import open_embedder
from llmchat.models.library import known_names
from llmchat.presets import broken, find, formats, get_format, names
from llmchat.settings import World, checked_option
from llmchat.ui.repl import Repl
from llmchat.ui.slash import registry


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    """`main` switches plugins by the world's environment."""
    yield
    plugins.configure({})


def run(home: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    """A whole command in this process: exit code, stdout, stderr."""
    world = make_world(home, **env)
    code = main(list(arguments), world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


# Commands

COMMANDS = """
import typer

app = typer.Typer(help="Notes.", no_args_is_help=True)

@app.command()
def add(ctx: typer.Context, text: str) -> None:
    "Keep a note."
    print(f"kept {text} in {ctx.obj.data.name}", file=ctx.obj.stdout)

def shout(text: str) -> None:
    "Fail aloud."
    raise ERROR

@hookimpl
def command(name):
    return {"notes": app, "shout": shout}[name]
"""


def test_commands_are_listed_without_an_import_and_run(packages: Packages, tmp_path: Path) -> None:
    code = COMMANDS.replace("ERROR", "ValueError(text)")
    packages.install("llmchat-a", code, "command.notes", "command.chat", summary="Notes for all")
    shown = run(tmp_path, "--help")[1]
    assert "Commands of plugins" in shown and "Notes for all" in shown
    assert "llmchat_a" not in sys.modules and shown.count("│ chat ") == 1
    assert run(tmp_path, "notes", "add", "milk") == (0, "kept milk in data\n", "")
    assert "Keep a note." in run(tmp_path, "notes", "add", "--help")[1]
    assert "Keep a note." in run(tmp_path, "help", "notes")[1]


def test_an_exception_of_a_command_names_its_plugin(packages: Packages, tmp_path: Path) -> None:
    code = COMMANDS.replace("ERROR", "FileNotFoundError(2, 'No such file', text)")
    packages.install("llmchat-a", code, "command.shout", "command.absent")
    failed, _, told = run(tmp_path, "shout", "loud")
    fault = (
        "error: the plugin `llmchat-a` failed: FileNotFoundError: [Errno 2] No such file: 'loud'"
    )
    assert failed == 1 and told.startswith(fault) and len(told.splitlines()) == 2
    failed, _, told = run(tmp_path, "absent")
    assert failed == 1 and "does not work (command.absent): KeyError" in told


def test_a_command_that_exits_with_a_text_fails_with_it(packages: Packages, tmp_path: Path) -> None:
    code = COMMANDS.replace("ERROR", "SystemExit(text)")
    packages.install("llmchat-a", code, "command.shout")
    assert run(tmp_path, "shout", "loud") == (1, "", "loud\n")


def test_command_of_a_disabled_plugin_is_a_question(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", COMMANDS.replace("ERROR", "ValueError()"), "command.notes")
    off = {"LLMCHAT_NO_PLUGINS": "1", "LLMCHAT_ENGINE": "scripted"}
    assert "Commands of plugins" not in run(tmp_path, "--help", **off)[1]
    assert "> notes" in run(tmp_path, "notes", **off)[1]
    assert "llmchat_a" not in sys.modules


def test_an_empty_list_says_so(packages: Packages, tmp_path: Path) -> None:
    assert run(tmp_path, "plugins") == (0, "", "no plugins are installed\n")
    assert run(tmp_path, "plugins", "-q") == (0, "", "")


def test_plugins_lists_and_checks_them(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", "1 / 0", "command.notes", "command.chat", "exporter.md")
    packages.install("llmchat-b", "", "comand.x", summary="B")
    code, out, told = run(tmp_path, "plugins", "--json")
    rows = {row["offers"]: row for row in json.loads(out)}
    assert code == 0 and {name: row["state"] for name, row in rows.items()} == {
        "command.notes": "on", "command.chat": "hidden", "exporter.md": "hidden",
        "comand.x": "broken",
    }  # fmt: skip
    assert rows["comand.x"]["summary"] == "B" and rows["comand.x"]["version"] == "1.0"
    assert (
        "unknown kind of plugin `comand`" in rows["comand.x"]["error"]
        and "llmchat_a" not in sys.modules
    )
    code, out, told = run(tmp_path, "plugins", "--check")
    assert code == 1 and told.count("ZeroDivisionError") == 3 and "command.notes\tllmchat-a" in out
    out = run(tmp_path, "plugins", LLMCHAT_NO_PLUGINS="1")[1]
    assert out.count("\toff\t") == 3 and out.count("\tbroken\t") == 1


# Slash commands

SLASH = """
from llmchat.ui.slash import Command

def wave(state, rest):
    state.print(f"waves to {rest}")
    AFTER

def complete(state, typed):
    COMPLETE

@hookimpl
def slash():
    return Command("other name", "[who]", "Wave to somebody.", wave, complete=complete)
"""


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    return make_repl(tmp_path)


def test_a_slash_command_is_listed_explained_and_run(packages: Packages, repl: Repl) -> None:
    code = SLASH.replace("AFTER", "return None").replace("COMPLETE", 'return ["you"]')
    packages.install("llmchat-a", code, "slash.wave", "slash.help", summary="Waves")
    shown = type_in(repl, "/help")
    assert "Plugins:" in shown and "/wave" in shown and "llmchat_a" not in sys.modules
    assert "[who]" in type_in(repl, "/help wave") and "Wave to" in type_in(repl, "/help wave")
    assert type_in(repl, "/wave the world") == "waves to the world\n"
    assert "Conversation:" in type_in(repl, "/help"), "/help itself cannot be replaced"
    found = registry.get("wave")
    assert found and found.complete and list(found.complete(repl.state, "")) == ["you"]


def test_a_broken_slash_command_is_one_line_and_the_chat_goes_on(
    packages: Packages, repl: Repl
) -> None:
    code = SLASH.replace("AFTER", "1 / 0").replace("COMPLETE", "1 / 0")
    packages.install("llmchat-a", code, "slash.wave")
    packages.install("llmchat-b", "1 / 0", "slash.absent")
    told = type_in(repl, "/wave you")
    assert "the plugin `llmchat-a` failed: ZeroDivisionError" in told
    assert "the plugin `llmchat-b` does not work (slash.absent)" in type_in(repl, "/absent")
    assert "bug in llmchat" not in told and "one" in type_in(repl, "hello")
    found = registry.get("wave")
    with pytest.raises(plugins.PluginError, match=r"slash\.wave"):
        found.complete(repl.state, "")  # type: ignore[union-attr, misc]


# Engines

ENGINE = """
from llmchat.engines.scripted import ScriptedEngine

class Broken(ScriptedEngine):
    def stream(self, prompt, sampling):
        yield from super().stream(prompt, sampling)
        FAULT

@hookimpl
def engine(name, model, options):
    folder = model.base and model.base.path.name
    return Broken([f"{name} has {model.preset.name} in {folder}"])
"""


def test_an_engine_answers(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", ENGINE.replace("FAULT", ""), "engine.mine")
    assert run(tmp_path, "--engine", "mine", "hello") == (0, "mine has smollm2 in None\n", "")
    assert "mine has" in run(tmp_path, "-c", "--json", "again")[1], "a session keeps its engine"
    assert checked_option("engine", "mine") == ("engine", "mine")


@pytest.mark.slow
def test_an_engine_gets_the_files_of_its_model(
    packages: Packages, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    packages.install("llmchat-a", ENGINE.replace("FAULT", ""), "engine.mine")
    name = folders[0].name
    asked = run(tmp_path, "-m", str(folders[0]), "-t", "chatml", "--engine", "mine", "hello")
    assert asked == (0, f"mine has {name} in {name}\n", "")


def test_an_unknown_engine_is_refused_with_all_names(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", ENGINE.replace("FAULT", ""), "engine.mine")
    code, _, told = run(tmp_path, "--engine", "mime", "hello")
    line = "error: --engine must be transformers, gguf, openai, scripted or mine, not `mime`\n"
    assert (code, told) == (2, line)


def test_an_exception_of_an_engine_names_its_plugin(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", ENGINE.replace("FAULT", "1 / 0"), "engine.mine")
    code, _, told = run(tmp_path, "--engine", "mine", "hello")
    assert code == 1 and "the plugin `llmchat-a` failed: ZeroDivisionError" in told


# Presets and formats

PRESETS = """
from pathlib import Path

@hookimpl
def presets():
    return Path(__file__).parent / "presets"
"""
PRESET = """
aliases = ["mine-too", "chat-smol"]
format = "mine-format"
[base]
kind = "path"
repo = "/nowhere"
"""


@pytest.fixture
def brought(packages: Packages) -> Packages:
    """A plugin with a preset and a format, and files that have names of llmchat's own."""
    folder = packages.folder / "presets"
    (folder / "formats").mkdir(parents=True)
    (folder / "mine.toml").write_text(PRESET)
    (folder / "smollm2.toml").write_text(PRESET)
    (folder / "wrong.toml").write_text("formt = 5")
    for name in ("mine-format", "chatml"):
        (folder / f"formats/{name}.toml").write_text('template = "{{ messages }}"\nsource = "me"\n')
    packages.install("llmchat-a", PRESETS, "presets.mine")
    return packages


def test_presets_and_formats_are_found_by_name_and_alias(brought: Packages, world: World) -> None:
    assert find("smollm2").base.repo != "/nowhere" and get_format("chatml").source != "me"
    assert "llmchat_a" not in sys.modules, "nothing is imported for what llmchat has itself"
    assert (
        find("Mine-Too").format.name == "mine-format" and get_format("mine-format").source == "me"
    )
    known = names()
    assert "mine" in known and known["smollm2"].base.repo != "/nowhere"
    assert "mine-format" in formats() and "mine" in known_names("mi", world)
    assert len(broken()) == 1 and "wrong.toml" in broken()[0]


def test_a_broken_plugin_breaks_no_other_model(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", "1 / 0", "presets.a")
    packages.install("llmchat-b", "@hookimpl\ndef presets(): return '/nowhere'", "presets.b")
    packages.install("llmchat-c", "@hookimpl\ndef presets(): return 5", "presets.c")
    assert find("org/name").base.repo == "org/name" and find(str(tmp_path)).base.kind == "path"
    with pytest.raises(ModelNotFound, match="no model is called `j9z7`") as caught:
        find("j9z7")
    assert "the plugin `llmchat-a` does not work (presets.a)" in caught.value.hint
    causes = ("ZeroDivisionError", "there is no folder /nowhere", "its hook returned no path")
    assert all(cause in told for cause, told in zip(causes, broken(), strict=True))


# Training data

DATA = """
@hookimpl
def data(argument):
    for number in range(2):
        yield {"instruction": f"{argument} {number}", "output": "yes"}
    {after}
"""


def test_rows_of_a_loader_are_training_data(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", DATA.replace("{after}", ""), "data.mine", "data.hub")
    code, out, _ = run(tmp_path, "data", "convert", "mine:a:b", "--to", "alpaca")
    assert code == 0 and [json.loads(line)["instruction"] for line in out.splitlines()] == [
        "a:b 0", "a:b 1",
    ]  # fmt: skip
    assert "names no data set" in run(tmp_path, "data", "convert", "hub:x", "--to", "text")[2]


@pytest.mark.parametrize(
    ("after", "told"), [("1 / 0", "ZeroDivisionError"), ("yield 5", "row 3 is `int`, not a dict")]
)
def test_exception_in_a_data_source_is_a_one_line_error(
    packages: Packages, tmp_path: Path, after: str, told: str
) -> None:
    packages.install("llmchat-a", DATA.replace("{after}", after), "data.mine")
    code, _, error = run(tmp_path, "data", "convert", "mine:x", "--to", "alpaca")
    assert code == 1 and "the plugin `llmchat-a` does not work (data.mine)" in error
    assert told in error


def test_a_file_of_that_name_is_read(
    packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.install("llmchat-a", "1 / 0", "data.mine")
    monkeypatch.chdir(tmp_path)
    Path("mine:file.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    code, out, _ = run(tmp_path, "data", "convert", "mine:file.jsonl", "--to", "alpaca")
    assert code == 0 and json.loads(out)["output"] == "b"


# Embedders

EMBEDDER = """
from support.word_embedders import WordEmbedder

@hookimpl
def embedder():
    return WordEmbedder({name!r}, groups=["cat feline"])
"""


def test_an_embedder_searches_an_index_by_meaning(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", EMBEDDER.format(name="mine"), "embedder.mine")
    (tmp_path / "pets.md").write_text("# Pets\n\nfeline\n")
    add = run(tmp_path, "index", "add", "pets", str(tmp_path / "pets.md"), "--embedder", "mine")
    assert add[0] == 0, add
    found = run(tmp_path, "index", "search", "pets", "cat", "--mode", "meaning", "--json")
    assert "feline" in json.loads(found[1])[0]["text"]


def test_an_embedder_has_the_name_of_its_entry_point(packages: Packages, world: World) -> None:
    packages.install("llmchat-a", EMBEDDER.format(name="yours"), "embedder.mine")
    with pytest.raises(plugins.PluginError, match="its embedder is called `yours`"):
        open_embedder(world, "mine")


# Exporters

EXPORTER = """
@hookimpl
def exporter():
    return lambda session, records: {text}
"""


@pytest.fixture
def chatted(world: World) -> World:
    """A world with one saved chat."""
    assert run(world.config.parent, "--engine", "scripted", "hello")[0] == 0
    return world


def test_an_exporter_writes_sessions_and_the_chat(
    packages: Packages, chatted: World, tmp_path: Path
) -> None:
    text = '"* " + records[0].message.text + "\\n"'
    packages.install("llmchat-a", EXPORTER.format(text=text), "exporter.org", "exporter.md")
    assert run(tmp_path, "sessions", "export", "-f", "org")[1] == "* hello\n"
    assert "## user" in run(tmp_path, "sessions", "export", "-f", "md")[1]
    repl = make_repl(tmp_path / "other")
    type_in(repl, "hi there", f"/export {tmp_path}/chat.org")
    assert (tmp_path / "chat.org").read_text() == "* hi there\n"
    code, _, told = run(tmp_path, "sessions", "export", "-f", "orgg")
    assert code == 2 and "did you mean `org`" in told


@pytest.mark.parametrize("text", ["1 / 0", "5"])
def test_a_fault_of_an_exporter_leaves_no_file(
    packages: Packages, chatted: World, tmp_path: Path, text: str
) -> None:
    packages.install("llmchat-a", EXPORTER.format(text=text), "exporter.org")
    target = tmp_path / "out.org"
    code, _, told = run(tmp_path, "sessions", "export", "-f", "org", "-o", str(target))
    assert code == 1 and "does not work (exporter.org)" in told and not target.exists()
