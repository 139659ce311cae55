"""`llmchat index` from the command line, with words alone."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.loopback_web import Reply, Site, serving
from support.word_embedders import WordEmbedder
from support.worlds import Stream, make_world

from llmchat.cli import main
from llmchat.memory.index import Index
from llmchat.settings import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world with two documents in an index."""
    world = make_world(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "cats.md").write_text("# Cats\n\nCats purr.\n")
    (docs / "dogs.txt").write_text("Dogs bark.\n")
    assert llmchat(world, "add", "pets", str(docs), "--embedder", "none") == (
        0, "", "pets: 2 documents read, 2 passages\n"
    )  # fmt: skip
    return world


def llmchat(world: World, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `llmchat index …`."""
    fresh = replace(world, stdin=Stream(stdin), stdout=Stream(), stderr=Stream())
    code = main(["index", *arguments], fresh)
    return code, fresh.stdout.getvalue(), fresh.stderr.getvalue()  # type: ignore[attr-defined]


def test_search_prints_the_passages(world: World, tmp_path: Path) -> None:
    code, out, _ = llmchat(world, "search", "pets", "purring cats")
    assert code == 0 and out.startswith(f"1. {tmp_path}/docs/cats.md  Cats  (")
    (hit,) = json.loads(llmchat(world, "search", "pets", "bark", "--json")[1])
    assert set(hit) == {"source", "start", "end", "score", "text"} and hit["text"] == "Dogs bark."


def test_a_search_without_a_match_says_so(world: World) -> None:
    assert llmchat(world, "search", "pets", "zebra") == (0, "", "no passage in `pets` fits\n")
    assert llmchat(world, "search", "pets", "zebra", "--json")[1] == "[]\n"


def test_update_follows_the_files(world: World, tmp_path: Path) -> None:
    (tmp_path / "docs" / "dogs.txt").unlink()
    (tmp_path / "docs" / "birds.txt").write_text("Birds sing.")
    (tmp_path / "docs" / "x.bin").write_bytes(b"\0")
    code, _, err = llmchat(world, "update")
    assert (code, err) == (
        0,
        f"skipped: {tmp_path}/docs/x.bin is a binary file\n"
        "pets: 1 document read, 1 passage; 1 unchanged; 1 removed; 1 skipped\n",
    )


def test_rm_removes_documents_or_the_index(world: World, tmp_path: Path) -> None:
    done = llmchat(world, "rm", "pets", str(tmp_path / "docs" / "cats.md"))
    assert done == (0, "", "1 document removed from pets\n")
    code, _, err = llmchat(world, "rm", "pets")
    assert code == 2 and "nothing was deleted" in err
    assert llmchat(world, "rm", "pets", "-y")[0] == 0
    assert llmchat(world, "list", "-q") == (0, "", "")
    assert not list((tmp_path / "data" / "indexes").iterdir())


def test_past_chats_are_added_and_follow_their_deletion(world: World) -> None:
    for text in ("about whales", "about foxes"):
        assert main(["chat", "--engine", "scripted", text], world) == 0
    code, _, err = llmchat(world, "add", "chats", "--sessions", "--embedder", "none")
    assert code == 0 and "2 documents read" in err
    (hit,) = json.loads(llmchat(world, "search", "chats", "whales", "--json")[1])
    assert hit["source"].startswith("session:") and "user: about whales" in hit["text"]
    session = hit["source"].removeprefix("session:")
    assert main(["sessions", "delete", session, "-y"], world) == 0
    assert llmchat(world, "search", "chats", "whales", "--json")[1] == "[]\n"
    assert "1 unchanged" in llmchat(world, "update", "chats")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "x"], "nothing to add"),
        (["add", "../x", "."], "invalid name of an index: `../x`"),
        (["add", "x", "/no/such/file"], "/no/such/file is not there"),
        (["search", "pet", "x"], "there is no index `pet`"),
        (["search", "pets", "x", "--mode", "fast"], "invalid mode `fast`"),
        (["search", "pets", "x", "--mode", "meaning"], "requires an embedder"),
        (["show", "pets", "nothing"], "nothing is not in the index"),
        (["rm", "pets", "nothing"], "is not in the index"),
        (["update", "nothing"], "there is no index `nothing`"),
        (["add", "x", ".", "--embedder", "smollm2"], "is not an embedder"),
    ],
)
def test_bad_input_is_one_clear_line(world: World, arguments: list[str], message: str) -> None:
    code, out, err = llmchat(world, *arguments)
    assert code == 2 and not out and message in err
    assert llmchat(world, "list", "-q")[1] in ("pets\n", "pets\nx\n")


def test_without_an_embedder_an_index_has_words_alone_and_says_so(
    world: World, tmp_path: Path
) -> None:
    code, _, err = llmchat(world, "add", "more", str(tmp_path / "docs"))
    assert code == 0 and "note: `more` is searched by words alone" in err
    assert "llmchat pull" in err


def test_the_vectors_of_an_index_are_kept_unless_an_update_replaces_them(
    world: World, tmp_path: Path
) -> None:
    with Index.open(tmp_path / "data" / "indexes" / "pets.sqlite") as index:
        index.update(embedder=WordEmbedder())
        for arguments in (["--embedder", "none"], ["--embedder", "other"]):
            code, _, err = llmchat(world, "add", "pets", str(tmp_path / "docs"), *arguments)
            assert code == 8 and "the index pets uses the embedder words" in err
        assert index.embedder == "words"
        assert llmchat(world, "update", "pets", "--embedder", "none")[0] == 0
        assert index.embedder == "" and index.words_only


def test_an_address_in_offline_mode_is_one_line(world: World) -> None:
    offline = replace(world, env={**world.env, "HF_HUB_OFFLINE": "1"})
    code, _, err = llmchat(offline, "add", "web", "https://example.org", "--embedder", "none")
    assert code == 2 and "skipped: offline mode is on, so the web is out of reach" in err


@pytest.mark.slow
def test_a_page_is_added_and_private_addresses_need_permission(world: World) -> None:
    page = "<html><title>Owls</title><main><h1>Owls</h1><p>Owls hunt at night.</p></main></html>"
    with serving(Site({"/owls": Reply(page.encode())})) as site:
        url = site.url
        refused = llmchat(world, "add", "web", f"{url}/owls", "--embedder", "none")
        assert refused[0] == 2 and "is not an address of the public internet" in refused[2]
        words = ["--embedder", "none", "--allow-private"]
        assert llmchat(world, "add", "web", f"{url}/owls", *words)[0] == 0
    (hit,) = json.loads(llmchat(world, "search", "web", "owls", "--json")[1])
    assert hit["source"] == f"{url}/owls" and "hunt at night" in hit["text"]
