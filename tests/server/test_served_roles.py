"""`serve --role`: a role is a model whose requests get its prompts, schema and sampling."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save_tiny, tiny_config
from support.serving import Running, serving
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.server.catalog import Catalog
from llmchat.server.errors import UnknownModel
from llmchat.server.roles import served_roles
from llmchat.settings import World

ROLES = {
    "shout": 'system = "Shout."\nprompt = "Say $what: $input"\n[values]\nwhat = "loud"\n'
    "[sampling]\ntemperature = 0\nmax_tokens = 3",
    "first": 'once = true\nprompt = "Begin: $input"',
    "formed": 'schema = "size int"\n[sampling]\nmax_tokens = 200',
    "looping": 'turns = ["Again."]',
    "reader": 'docs = ["notes"]',
    "elsewhere": 'model = "alpaca-7b"',
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "config" / "roles").mkdir(parents=True)
    for name, text in ROLES.items():
        (folder / "config" / "roles" / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def own_world(home: Path) -> World:
    return make_world(home)


@pytest.fixture(scope="module")
def tiny(home: Path) -> Path:
    return save_tiny(home / "tiny", tiny_config(max_position_embeddings=4096))


@pytest.fixture(scope="module")
def run(own_world: World, tiny: Path, home: Path) -> Iterator[Running]:
    roles = served_roles(own_world, ["shout what=it", "first", "formed"], ())
    flags = {"weights": "fp32", "format": "chatml"}
    catalog = Catalog(own_world, flags, [str(tiny)], {}, 4, roles)
    assert catalog.names() == ["tiny", "role:shout", "role:first", "role:formed"]
    specs = {name: catalog.spec(name) for name in catalog.names()}
    with serving(specs, home, slots=4, roles=roles, budget=10**9) as running:
        yield running


def prompt(run: Running, model: str, *messages: tuple[str, str], **more: Any) -> str:
    answer = run.openai.chat.completions.create(
        model=model,
        messages=[{"role": role, "content": text} for role, text in messages],  # type: ignore[misc]
        extra_body={"show_prompt": True, **more},
        max_tokens=2,
    )
    assert answer.model == model
    return str(answer.llmchat["prompt"])  # type: ignore[attr-defined]


def test_each_question_gets_the_prompt_of_the_role(run: Running) -> None:
    asked = prompt(run, "role:shout", ("user", "a"), ("assistant", "A"), ("user", "b"))
    assert "Say it: a" in asked and "Say it: b" in asked
    assert asked.index("Shout.") < asked.index("Say it: a")
    assert "Say it" not in prompt(run, "tiny", ("user", "a"))


def test_role_with_once_words_the_first_question_alone(run: Running) -> None:
    asked = prompt(run, "role:first", ("user", "a"), ("assistant", "A"), ("user", "b"))
    assert "Begin: a" in asked and "Begin: b" not in asked


def test_system_text_of_a_request_replaces_that_of_the_role(run: Running) -> None:
    asked = prompt(run, "role:shout", ("system", "Whisper."), ("user", "a"))
    assert "Whisper." in asked and "Shout." not in asked


def test_sampling_of_the_role_holds_for_what_a_request_omits(run: Running) -> None:
    ask = run.openai.chat.completions.create
    hello: Any = [{"role": "user", "content": "hi"}]
    one, other = (ask(model="role:shout", messages=hello) for _ in range(2))
    assert one.choices[0].message.content == other.choices[0].message.content
    assert one.usage and one.usage.completion_tokens <= 3
    longer = ask(model="role:shout", messages=hello, max_tokens=5, extra_body={"ignore_eos": True})
    assert longer.usage and longer.usage.completion_tokens == 5
    details = run.http.get("/v1/models/role:shout").json()["llmchat"]
    assert (details["system"], details["sampling"]["max_tokens"]) == ("Shout.", 3)


def test_schema_of_the_role_binds_answers_unless_the_request_has_a_form(run: Running) -> None:
    ask = run.openai.chat.completions.create
    hello: Any = [{"role": "user", "content": "hi"}]
    bound = ask(model="role:formed", messages=hello).choices[0].message.content
    assert isinstance(json.loads(bound or "")["size"], int)
    choice = {"choice": ["yes", "no"]}
    free = ask(model="role:formed", messages=hello, extra_body={"structured_outputs": choice})
    assert free.choices[0].message.content in ("yes", "no")


def test_messages_api_counts_the_words_of_the_role(run: Running) -> None:
    hello: Any = [{"role": "user", "content": "hi"}]
    count = run.anthropic.messages.count_tokens
    plain = count(model="tiny", messages=hello)
    assert count(model="role:shout", messages=hello).input_tokens > plain.input_tokens
    message = run.anthropic.messages.create(model="role:shout", messages=hello, max_tokens=2)
    assert message.model == "role:shout"


def test_raw_text_is_refused_because_it_gets_no_prompt(run: Running) -> None:
    refused = run.http.post("/v1/completions", json={"model": "role:first", "prompt": "a"})
    assert refused.status_code == 400 and "roles are for chats" in refused.text


def test_role_and_its_model_share_one_engine(run: Running) -> None:
    for model in ("tiny", "role:shout", "role:first"):
        prompt(run, model, ("user", "hi"))
    assert len(run.state.pool.loaded_models()) == 1


def test_roles_that_cannot_be_served_are_refused(own_world: World, tiny: Path) -> None:
    with pytest.raises(UsageError, match="`looping` has turns, which a server does not support"):
        served_roles(own_world, ["looping"], ())
    with pytest.raises(UsageError, match="searches `notes`, which the server does not offer"):
        served_roles(own_world, ["reader"], ("other",))
    with pytest.raises(UsageError, match="`shout` is named twice"):
        served_roles(own_world, ["shout", "shout what=it"], ())
    roles = served_roles(own_world, ["elsewhere"], ())
    with pytest.raises(UnknownModel, match="`alpaca-7b` is not served; available: tiny"):
        Catalog(own_world, {}, [str(tiny)], {}, 4, roles).spec("role:elsewhere")


def test_documents_of_a_role_are_searched_unless_a_request_names_others(own_world: World) -> None:
    from llmchat.server.api import ChatRequest

    role = served_roles(own_world, ["reader"], ("notes",))["role:reader"]
    fields: Any = {"model": "role:reader", "messages": [{"role": "user", "content": "hi"}]}
    assert role.fill(ChatRequest(**fields)).docs == ["notes"]
    assert role.fill(ChatRequest(**fields, docs=[])).docs == []
