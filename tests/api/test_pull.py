"""`llmchat.pull` from a Hub on loopback, and a chat with what was pulled."""

from pathlib import Path

import pytest
from support.loopback_hub import Hub
from support.worlds import make_world

import llmchat
from llmchat.settings import World


@pytest.fixture
def hub_world(hub: Hub, tmp_path: Path) -> World:
    return make_world(tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))


def test_a_dry_run_reports_and_fetches_no_weights(hub_world: World) -> None:
    plan = llmchat.pull("org/base", dry_run=True, world=hub_world)
    assert plan.download > 0 and plan.verdict == "yes" and plan.licence == "apache-2.0"
    assert str(plan).splitlines()[0].startswith("model      org/base")
    with pytest.raises(llmchat.NotPulled):
        llmchat.open("org/base", world=hub_world)


def test_what_was_pulled_can_be_opened(hub_world: World) -> None:
    llmchat.pull("org/base", world=hub_world, quiet=True)
    assert llmchat.pull("org/base", dry_run=True, world=hub_world).download == 0
    options = {"format": "alpaca", "temperature": 0, "max_tokens": 4}
    with llmchat.open("org/base", world=hub_world, **options) as chat:
        answer = chat.ask("Hello")
        assert answer.usage.completion_tokens == 4 and answer.finish_reason == "length"
        assert chat.ask("Hello").usage.cached_tokens > 0
        with pytest.raises(llmchat.LlmchatError, match="`uniqueItems`"):
            chat.ask("Hello", schema={"type": "array", "uniqueItems": True})


def test_an_adapter_of_another_name_is_an_error(hub_world: World) -> None:
    with pytest.raises(llmchat.LlmchatError, match="org/none"):
        llmchat.pull("org/none", world=hub_world, quiet=True)
