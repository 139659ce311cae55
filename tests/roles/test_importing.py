"""`llmchat roles import`: files of aichat and llm, as their documentation has them."""

from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.cli import main
from llmchat.conversation import Message
from llmchat.roles import Role, find_role

FILES = {
    "grammar-genie.md": """---
model: openai:gpt-4o
temperature: 0
top_p: 0
---
Rewrite the text, even for $5.
""",
    "emoji.md": "convert __INPUT__ to emoji",
    "convert.md": "---\ntemperature: 0.5\n---\nconvert __INPUT__ from __ARG1__ to __ARG2__",
    "code.md": """Provide only code.

### INPUT:
async sleep in js
### OUTPUT:
await timeout(1)
""",
    "shell.md": "---\nuse_tools: fs_ls,fs_cat\nagent_id: x\n---\nA command for {{__os__}}.",
    "summary.yaml": """
system: You speak $language
prompt: 'Summarise in $$: $input'
model: smollm2
defaults:
  language: French
  unused: x
options:
  temperature: 0.5
  num_ctx: 100
  max_tokens: 9999999999
schema_object:
  type: object
  properties: {n: {type: integer, enum: [1, null]}}
fragments: [a.txt]
extract: true
""",
    "plain.yaml": "Explain this simply.\n",
    "chapters.yaml": """
variables:
  - name: language
    default: English
  - name: text
    rest: true
steps:
  - .model openai:gpt-4o
  - Summarise {{text}} in {{language}}, for $5
  - Make it shorter
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def run(home: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    world = make_world(home, **env)
    code = main(["roles", "import", *arguments], world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


def imported(home: Path, file: Path, spec: str = "") -> tuple[Role, str]:
    """The role of a file, and the notes on it."""
    code, out, err = run(home, str(file))
    assert code == 0 and out == f"{file.stem}\n", err
    return find_role(spec or file.stem, home / "config" / "roles", complete=False), err


def test_system_text_and_sampling_of_an_aichat_role(folder: Path, tmp_path: Path) -> None:
    role, notes = imported(tmp_path, folder / "grammar-genie.md")
    options = role.options()
    assert options == {"system": "Rewrite the text, even for $5.", "temperature": 0.0}
    assert "its model `openai:gpt-4o` is left out" in notes
    assert "`top_p` is left out: top_p must be a number above 0, up to 1, not `0`" in notes


def test_input_and_arguments_of_an_aichat_role(folder: Path, tmp_path: Path) -> None:
    role, _ = imported(tmp_path, folder / "emoji.md")
    assert role.ask(Message("user", "angry")).text == "convert angry to emoji"
    role, _ = imported(tmp_path, folder / "convert.md", "convert arg1=json arg2=yaml")
    assert role.ask(Message("user", "{}")).text == "convert {} from json to yaml"
    assert role.sampling == {"temperature": 0.5}


def test_examples_of_an_aichat_role_are_kept_in_its_system_text(
    folder: Path, tmp_path: Path
) -> None:
    role, _ = imported(tmp_path, folder / "code.md")
    assert role.system == (
        "Provide only code.\n\nExamples:\n\n"
        "### INPUT:\nasync sleep in js\n### OUTPUT:\nawait timeout(1)"
    )


def test_what_has_no_place_in_a_role_is_named(folder: Path, tmp_path: Path) -> None:
    role, notes = imported(tmp_path, folder / "shell.md")
    assert role.system == "A command for {{__os__}}." and role.tools == ()
    assert "note: shell: its tools (fs_ls,fs_cat) are aichat's" in notes
    assert "note: shell: `agent_id` is left out" in notes
    assert "note: shell: `{{__os__}}` stays as it is" in notes


def test_template_of_llm(folder: Path, tmp_path: Path) -> None:
    role, notes = imported(tmp_path, folder / "summary.yaml")
    options = role.options()
    assert options["system"] == "You speak French" and options["model"] == "smollm2"
    assert options["temperature"] == 0.5 and "max_tokens" not in options
    assert '"enum":[1,null]' in options["schema"]
    assert role.ask(Message("user", "x")).text == "Summarise in $: x"
    for name in ("num_ctx", "max_tokens", "fragments", "extract"):
        assert f"note: summary: `{name}` is left out" in notes
    assert "the default of `unused` is left out" in notes


def test_template_that_is_a_text_goes_before_the_question(folder: Path, tmp_path: Path) -> None:
    role, _ = imported(tmp_path, folder / "plain.yaml")
    assert role.ask(Message("user", "x")).text == "Explain this simply.\n\nx"


def test_macro_of_aichat_becomes_a_role_of_several_turns(folder: Path, tmp_path: Path) -> None:
    role, notes = imported(tmp_path, folder / "chapters.yaml")
    assert role.ask(Message("user", "it")).text == "Summarise it in English, for $5"
    assert role.follow_ups("it") == ("Make it shorter",) and role.once
    assert "note: chapters: the step `.model openai:gpt-4o` is left out" in notes


def test_list_of_an_old_aichat(tmp_path: Path) -> None:
    (tmp_path / "roles.yaml").write_text(
        "- name: Grammar Genie\n  prompt: Correct.\n- name: convert:json\n  prompt: to __ARG1__\n"
    )
    code, out, _ = run(tmp_path, str(tmp_path / "roles.yaml"))
    assert (code, out) == (0, "grammar-genie\nconvert\n")


def test_folder_is_read_whole_and_own_roles_stay(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "config" / "roles"
    own.mkdir(parents=True)
    (own / "emoji.toml").write_text('system = "mine"')
    (folder / "bad.yaml").write_text("a: [")
    (folder / "none.yaml").write_text("colour: red")
    code, out, err = run(tmp_path, str(folder))
    assert code == 1 and len(out.split()) == len(FILES) - 1
    assert "the role `emoji` exists (--replace replaces it)" in err
    assert f"{folder}/bad.yaml cannot be read" in err or "bad.yaml cannot be read" in err
    assert f"{folder}/none.yaml has no prompt and no system text" in err
    assert "error: 3 files or roles could not be imported" in err
    assert find_role("emoji", own).system == "mine"
    assert run(tmp_path, "--replace", str(folder / "emoji.md"))[0] == 0
    assert find_role("emoji", own).prompt == "convert ${input} to emoji"


def test_usual_places_are_those_of_this_user(folder: Path, tmp_path: Path) -> None:
    assert "neither aichat nor llm has roles" in run(tmp_path)[2]
    templates = tmp_path / ".config" / "io.datasette.llm" / "templates"
    templates.parent.mkdir(parents=True)
    folder.rename(templates)
    assert run(tmp_path)[0] == 0
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "last.md").write_text("x")
    env = {"AICHAT_CONFIG_DIR": str(tmp_path), "LLM_USER_PATH": str(tmp_path / "no")}
    assert run(tmp_path, **env)[:2] == (0, "last\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.md", "---\n- x\n---\ny", "the YAML between `---` is not a mapping"),
        ("a.md", "---\na: [\n---\ny", "cannot be read"),
        ("a.md", "", "the role `a` has no text"),
        ("a.yaml", "- x", "entry 1 is not a role with a `name`"),
        ("a.yaml", "5", "contains no role of aichat and no template of llm"),
        ("a.yaml", "prompt: 5", "`prompt` is not a text"),
        ("a.yaml", "prompt: costs $5", "`prompt`: `$5` is not a `$name`"),
        ("a.yaml", "system: $input", "`system` contains $input"),
        ("a.yaml", "system: x\noptions: 5", "`options` is not a table"),
        ("a.yaml", "steps: [.exit]", "no step of the macro is a question"),
        ("a.yaml", "x: &x [1]\nprompt: *x", "a.yaml has YAML aliases"),
        ("a.yaml", "!!python/object:os.system {}", "cannot be read"),
        ("a b!.md", "\xff", ""),
    ],
)
def test_bad_file_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    code, out, err = run(tmp_path, str(tmp_path / name))
    if not message:
        assert (code, out) == (0, "a-b\n")
        return
    assert code == 1 and out == "" and message in err and err.count("\n") <= 3


def test_a_file_that_is_missing_ends_the_import(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, str(tmp_path / "no.md"))
    assert code == 2 and "error: there is no file" in err
