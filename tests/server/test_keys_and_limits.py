"""API keys at rest and in use, and how often one client may ask."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmchat.errors import UsageError
from llmchat.server.errors import Busy
from llmchat.server.keys import Keys
from llmchat.server.limits import RateLimit


def test_a_key_is_recognised_but_not_stored(tmp_path: Path) -> None:
    file = tmp_path / "config" / "keys.json"
    keys = Keys(file)
    ann, bob = keys.add("ann"), keys.add("bob")
    assert [key and key.name for key in map(keys.holder, (ann, bob, ann + "x", ""))] == [
        "ann",
        "bob",
        None,
        None,
    ]
    assert ann not in file.read_text() and ann.removeprefix("llmchat-")[:20] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and ann != bob and len(ann) > 40


def test_changes_by_another_process_are_noticed(tmp_path: Path) -> None:
    served, command = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    assert served.all() == ()
    secret = command.add("ann")
    assert (held := served.holder(secret)) and held.name == "ann"
    command.remove("ann")
    assert served.holder(secret) is None and served.all() == ()


def test_concurrent_changes_are_all_stored(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    Keys(file).add("old")
    names = [f"n{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        adding = [threads.submit(Keys(file).add, name) for name in names]
        removing = threads.submit(Keys(file).remove, "old")
    assert len({change.result() for change in adding}) == 20 and removing.exception() is None
    assert sorted(key.name for key in Keys(file).all()) == sorted(names), (
        "a key that was removed does not come back"
    )


@pytest.mark.parametrize("hash_", ["", "\u00e9", "A" * 64, "0" * 63], ids=ascii)
def test_a_key_with_an_invalid_hash_makes_the_file_unreadable(tmp_path: Path, hash_: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"name": "a", "sha256": hash_, "created": 1, "end": "x"}]))
    with pytest.raises(UsageError, match="cannot read the keys in"):
        Keys(file).holder("x")


def test_an_unreachable_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keys = Keys(tmp_path / "file" / "keys.json")
    with pytest.raises(UsageError, match=r"cannot read the keys in .*: Not a directory"):
        keys.all()
    with pytest.raises(UsageError, match="cannot change"):
        keys.add("ann")


def test_names_are_validated(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    keys.add("ann")
    for name in ("ann", "", "a b", "x" * 65, "a\nb"):
        with pytest.raises(UsageError):
            keys.add(name)
    with pytest.raises(UsageError):
        keys.remove("bob")


def test_a_damaged_file_admits_no_one(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("[{")
    with pytest.raises(UsageError):
        Keys(tmp_path / "keys.json").holder("anything")


def test_a_bucket_fills_again() -> None:
    now = 0.0
    rate = RateLimit(6, lambda: now)
    for _ in range(6):
        rate.spend("ann")
    with pytest.raises(Busy) as caught:
        rate.spend("ann")
    assert caught.value.headers["Retry-After"] == "10"
    rate.spend("bob")
    now = 10.0
    rate.spend("ann")
    with pytest.raises(Busy):
        rate.spend("ann")
    RateLimit(0).spend("ann")


def test_full_buckets_are_forgotten() -> None:
    now = 0.0
    rate = RateLimit(60, lambda: now)
    for number in range(5000):
        now += 0.01
        rate.spend(str(number))
    assert len(rate) <= 4096
