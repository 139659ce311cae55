"""Requests of a pull: only to the Hub and its CDN, the token to the Hub alone, in bounded time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hub_attacks
from support.checkpoints import save_tiny
from support.loopback_hub import Hub, Repo, etag_of, serving
from support.worlds import MakeWorld, make_world

from llmchat.errors import IntegrityError, NetworkError, UsageError
from llmchat.hub import pull
from llmchat.hub.retry import TransferLimits
from llmchat.output.progress import NoProgress
from llmchat.presets import Source

BASE = Source("hub", "org/base")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo.of_folder(save_tiny(tmp_path_factory.mktemp("base")))


@pytest.fixture
def hub(base: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("llmchat.hub.retry.WAITS", (0.0,) * 4)
    with serving(Hub({"org/base": Repo(dict(base.files))}, cdn=True)) as hub:
        yield hub


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_the_token_goes_to_the_hub_and_to_no_other_host(hub: Hub, at: MakeWorld) -> None:
    hub.repos["org/base"].private = True
    pull(BASE, at(HF_TOKEN=hub.token), NoProgress())
    tokens = {(request.port, request.token) for request in hub.requests}
    assert tokens == {(port(hub.url), hub.token), (port(hub.cdn_url), None)}


def test_a_token_is_not_given_back_after_a_detour(hub: Hub, at: MakeWorld) -> None:
    """To the CDN, and from there to the Hub again: the Hub alone decides who gets the token."""
    back = f"{hub.url}/cdn/org/base/model.safetensors"
    hub.attacks["/cdn/"], hub.times["/cdn/"] = hub_attacks.redirect(back), 1
    pull(BASE, at(HF_TOKEN=hub.token), NoProgress())
    assert {request.token for request in hub.requests if "/cdn/" in request.path} == {None}


def test_an_expired_link_is_asked_for_anew_once(hub: Hub, at: MakeWorld) -> None:
    hub.fail_with["/cdn/"], hub.times["/cdn/"] = 403, 1
    pull(BASE, at(), NoProgress())
    links = [request.path for request in hub.requests if "a/model.safetensors" in request.path]
    assert len(links) == 2, "the file, and its fresh link"


def test_a_server_without_ranges_that_is_cut_loses_nothing_and_ends(
    hub: Hub, at: MakeWorld
) -> None:
    hub.ignore_ranges, hub.cut_after = True, [50_000, 80_000, 20_000]
    assert pull(BASE, at(), NoProgress()).downloaded > 0
    hub.repos["org/base"].commit = "b" * 40
    hub.repos["org/base"].files["model.safetensors"] += b" " * 8
    hub.cut_after = [50_000] * 100
    with pytest.raises(NetworkError, match="cut again and again"):
        pull(BASE, at(), NoProgress())
    assert len(hub.cut_after) > 90, "the same bytes again and again are no progress"


def test_a_page_in_the_middle_keeps_what_was_there(hub: Hub, at: MakeWorld, tmp_path: Path) -> None:
    hub.cut_after = [60_000]
    # The first connection is cut; at the next one the network wants a sign-in.
    hub.attacks["/cdn/"] = lambda handler: (
        hub_attacks.web_page(handler)
        if handler.headers.get("Range")
        else handler.usual("/cdn/org/base/model.safetensors")
    )
    with pytest.raises(NetworkError, match="web page"):
        pull(BASE, at(), NoProgress())
    # Other files, on their way at the same time, may have left a beginning too.
    weights = etag_of("model.safetensors", hub.repos["org/base"].files["model.safetensors"])
    (kept,) = (tmp_path / "hf").rglob(f"{weights}.llmchat.incomplete")
    assert kept.stat().st_size == 60_000
    hub.attacks.clear()
    pull(BASE, at(), NoProgress())
    assert "bytes=60000-" in {request.range for request in hub.requests}


@pytest.mark.parametrize(
    "endpoint",
    [
        "foo",
        "ftp://host",
        "http://",
        "http://a b",
        "http://[",
        "http://host:99999",
        "https://h\u00fcb",
        "x" * 5000,
    ],
)
def test_an_endpoint_that_is_none_is_refused_in_a_short_line(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT is not a valid address") as refused:
        pull(BASE, make_world(tmp_path, HF_ENDPOINT=endpoint), NoProgress())
    assert len(refused.value.message) < 150


@pytest.mark.parametrize(
    ("repo", "revision"),
    [
        ("../etc", ""), ("a/b/c", ""), ("a b/c", ""), ("\u00fc/b", ""), ("a/b--c", ""),
        ("a/" + "x" * 200, ""), ("a/b.git", ""), ("a/b", "../x"), ("a/b", "a b"),
        ("a/b", "\x1b[2J"),
    ],
)  # fmt: skip
def test_a_name_that_no_hub_has_is_refused_before_a_request(
    repo: str, revision: str, hub: Hub, at: MakeWorld
) -> None:
    with pytest.raises(UsageError, match="is not a valid"):
        pull(Source("hub", repo, revision), at(), NoProgress())
    assert not hub.requests


def test_a_missing_branch_is_not_called_an_empty_revision(hub: Hub, at: MakeWorld) -> None:
    hub.attacks["/api/"] = lambda handler: handler.error(404, "RevisionNotFound", "Invalid rev id")
    with pytest.raises(Exception, match="org/base has no default branch"):
        pull(BASE, at(), NoProgress())


def test_what_is_here_is_used_when_the_hub_talks_nonsense(hub: Hub, at: MakeWorld) -> None:
    first = pull(BASE, at(), NoProgress())
    hub.attacks["/api/"] = hub_attacks.says([])
    again = pull(BASE, at(), NoProgress())
    assert again.checkpoint == first.checkpoint and "not checked for updates" in again.notes[0]


def test_errors_carry_nothing_that_steers_a_terminal(hub: Hub, at: MakeWorld) -> None:
    hub.attacks["/api/"] = hub_attacks.says(
        {
            "sha": "a" * 40,
            "siblings": [{"rfilename": "\x1b]0;x\x07" + "y" * 9000, "size": 1, "blobId": "0" * 40}],
        }
    )
    with pytest.raises(IntegrityError) as refused:
        pull(BASE, at(), NoProgress())
    assert refused.value.message.isprintable() and len(refused.value.message) < 200


def test_patience_is_read_from_the_environment(tmp_path: Path) -> None:
    assert TransferLimits.of(make_world(tmp_path)) == TransferLimits(30, 1000, 10)
    assert TransferLimits.of(
        make_world(tmp_path, LLMCHAT_PULL_WINDOW="6", LLMCHAT_PULL_RATE="50")
    ) == TransferLimits(6, 50, 2)
    for wrong in ("x", "-1", "nan", "inf"):
        with pytest.raises(UsageError, match="LLMCHAT_PULL_WINDOW must be a number above 0"):
            TransferLimits.of(make_world(tmp_path, LLMCHAT_PULL_WINDOW=wrong))
