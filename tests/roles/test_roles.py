"""Roles: their files, their values, and what they ask."""

import os
from pathlib import Path

import pytest

from llmchat.conversation import Message
from llmchat.errors import LlmchatError, ModelNotFound, UsageError
from llmchat.roles import broken, chosen_role, find_role, kept_options, names, read_role, with_role

WHOLE = '''
about = "Translate"
system = "You speak $language and $$."
prompt = """
Into $language:

$input"""
model = "smollm2"
format = "chatml"
schema = "word, count int"
tools = ["calculator"]
docs = ["notes"]
once = true
turns = ["Shorter, in $language.", "Again: $input"]

[values]
language = "English"

[sampling]
temperature = 0
max_tokens = 40
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "roles"
    folder.mkdir()
    (folder / "whole.toml").write_text(WHOLE)
    return folder


def write(own: Path, text: str, name: str = "r") -> Path:
    path = own / f"{name}.toml"
    path.write_text(text)
    return path


def test_options_have_the_names_of_settings(own: Path) -> None:
    options = find_role("whole language=French", own).options()
    assert options.pop("schema").startswith('schema {"type":"object"')
    assert options == {
        "model": "smollm2",
        "format": "chatml",
        "system": "You speak French and $.",
        "tool": ("calculator",),
        "docs": ("notes",),
        "temperature": 0.0,
        "max_tokens": 40,
    }


def test_prompt_goes_around_the_question_and_material_stays(own: Path) -> None:
    role = find_role("whole", own)
    asked = role.ask(Message("user", "$5 & Wo?", "material", files=(("f", 8),)))
    assert asked == Message("user", "Into English:\n\n$5 & Wo?", "material", files=(("f", 8),))
    assert role.follow_ups("Wo?") == ("Shorter, in English.", "Again: Wo?")


def test_prompt_without_input_goes_before_the_question(own: Path) -> None:
    write(own, 'prompt = "Review this.\\n"')
    role = find_role("r", own)
    assert role.ask(Message("user", "code")).text == "Review this.\n\ncode"
    assert role.ask(Message("user", "", "code")) == Message("user", "Review this.", "code")


@pytest.mark.parametrize(
    "values", ["language='Brazilian Portuguese'", 'language="Brazilian Portuguese"']
)
def test_spec_keeps_values_of_several_words(own: Path, values: str) -> None:
    role = find_role(f"whole {values}", own)
    assert role.values["language"] == "Brazilian Portuguese"
    assert find_role(role.spec, own) == role


def test_role_of_a_path_is_found_again_from_any_folder(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    role = find_role("./whole.toml")
    assert role.name == "whole" and role.spec == str(own / "whole.toml")
    monkeypatch.chdir("/")
    assert find_role(role.spec) == role


def test_files_of_a_schema_begin_in_the_folder_of_the_role(own: Path) -> None:
    (own / "s.json").write_text('{"type": "integer"}')
    (own / "g.lark").write_text('start: "a"')
    assert read_role(write(own, 'schema = "s.json"')).schema == 'schema {"type":"integer"}'
    role = read_role(write(own, 'schema = "grammar g.lark"'))
    assert role.schema == f"grammar {own / 'g.lark'}"
    table = read_role(write(own, '[schema]\ntype = "string"'))
    assert table.schema == 'schema {"type":"string"}'


def test_own_role_goes_before_one_of_llmchat(own: Path) -> None:
    write(own, 'system = "mine"', "translate")
    assert find_role("translate", own).system == "mine"
    assert names(own)["translate"].system == "mine" and "summarise" in names(own)


def test_roles_that_come_with_llmchat_are_complete() -> None:
    roles = names()
    assert {"translate", "summarise", "commit", "refine"} <= roles.keys()
    for role in roles.values():
        role.check_complete()
        assert role.about and role.ask(Message("user", "Q")).text.endswith("Q")


def test_off_and_nothing_choose_no_role(own: Path) -> None:
    assert chosen_role("off", own) is None and chosen_role(None, own) is None


def test_flags_go_before_a_role_and_another_model_takes_none_of_its_format(own: Path) -> None:
    sets = find_role("whole", own).options()
    assert with_role(sets, {"temperature": 1.0, "seed": None})["temperature"] == 1.0
    other = with_role(sets, {"model": "phi-2"})
    assert other["model"] == "phi-2" and "format" not in other and other["docs"] == ("notes",)


def test_chat_that_is_continued_keeps_its_model_and_its_system_text(own: Path) -> None:
    kept = kept_options(find_role("whole", own))
    assert kept.keys() == {"schema", "tool", "temperature", "max_tokens"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promt = 'x'", "there is no key `promt` in a role"),
        ("name = 'x'", "there is no key `name` in a role"),
        ("prompt = 5", "Expected `str`, got `int`"),
        ("prompt = 'It costs $5.'", "`prompt`: `$5.` is not a `$name`"),
        ("turns = ['a', '$ b']", "`turns[1]`: `$ b` is not a `$name`"),
        ("turns = [' ']", "`turns[0]` is empty"),
        ("system = '$input'", "`system` contains $input"),
        ("prompt = '$a'\n[values]\nb = 'x'", "the role `r` has no value `b`"),
        ("[values]\ninput = 'x'", "`values` contains `input`"),
        ("[sampling]\ntemperature = 9", "`sampling.temperature` must be a number from 0 to 5"),
        ("[sampling]\ntemp = 1", "there is no sampling parameter `temp`"),
        ("schema = 'a strr'", "the field `a` has the unknown type `strr`"),
        ("schema = 5", "`schema` is not a text or a table"),
        ("x = ", "is not valid TOML"),
    ],
)
def test_invalid_role_is_a_one_line_error_with_its_file(own: Path, text: str, message: str) -> None:
    path = write(own, text)
    with pytest.raises(UsageError) as raised:
        read_role(path)
    assert raised.value.message.startswith(str(path)) and message in raised.value.message
    assert broken(own) == [raised.value.message] and "r" not in names(own)


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("whol", ModelNotFound, "there is no role `whol`"),
        ("./no.toml", ModelNotFound, "there is no role file ./no.toml"),
        ("../whole", ModelNotFound, "there is no role `../whole`"),
        ("whole tongue=x", UsageError, "the role `whole` has no value `tongue`"),
        ("whole French", UsageError, "`French` after the role `whole` is not KEY=VALUE"),
        ("whole 'x", UsageError, "the role `whole 'x` cannot be read: no closing quotation"),
        ("open", UsageError, "the role `open` requires a value for a and b"),
    ],
)
def test_unknown_role_or_value_is_one_line(
    own: Path, spec: str, kind: type[LlmchatError], message: str
) -> None:
    write(own, "prompt = '$a $b $input'", "open")
    with pytest.raises(kind) as raised:
        find_role(spec, own)
    assert (raised.value.message == message and raised.value.hint) or "file" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_read_as_a_role(own: Path) -> None:
    os.mkfifo(own / "pipe.toml")
    assert broken(own) == [f"{own / 'pipe.toml'} is not a regular file"]
