"""No call runs without leave, and leave reaches no further than the user gave it."""

import stat

import pytest
from support.tools import SmallTool

from llmchat.calls import Call
from llmchat.errors import UsageError
from llmchat.tools.permission import Permissions, Reply, check_names, rule_for

READS = SmallTool("files_read", "files")
WRITES = SmallTool("git_commit", "git", "mcp-server-git --repo .", read_only=False)
CALL = Call("1", "files_read", {"path": "a"})
COMMIT = Call("2", "git_commit", {"message": "x"})


def asking(*answers: str):
    """A person who gives these answers, and the calls that were asked about."""
    waiting, asked = list(answers), []

    def ask(call, tool):
        asked.append(call)
        return Reply(waiting.pop(0))

    return ask, asked


def test_nothing_runs_where_nobody_can_be_asked():
    assert Permissions(None).decide(CALL, READS).answer == "no"


@pytest.mark.parametrize("name", ["files", "files.read", "files_read"])
def test_a_named_tool_runs_without_a_question(name):
    assert Permissions(None, [name]).decide(CALL, READS).answer == "once"


def test_leave_for_one_tool_is_not_leave_for_its_group():
    permissions = Permissions(None, ["files_read"])
    assert permissions.decide(CALL, SmallTool("files_search", "files")).answer == "no"


def test_once_asks_again():
    ask, asked = asking("once", "once")
    permissions = Permissions(None, ask=ask)
    permissions.decide(CALL, READS), permissions.decide(CALL, READS)
    assert len(asked) == 2


def test_session_asks_no_second_time_and_keeps_nothing(tmp_path):
    ask, asked = asking("session")
    permissions = Permissions(tmp_path / "allowed.toml", ask=ask)
    permissions.decide(CALL, READS), permissions.decide(CALL, READS)
    assert len(asked) == 1
    assert not (tmp_path / "allowed.toml").exists()


def test_always_survives_the_session_for_a_tool_that_only_reads(tmp_path):
    file = tmp_path / "config" / "allowed.toml"
    Permissions(file, ask=asking("always")[0]).decide(CALL, READS)
    other = Call("9", "files_read", {"path": "b"})
    assert Permissions(file, ask=asking()[0]).decide(other, READS).answer == "once"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_always_means_exactly_this_call_for_a_tool_that_changes_something(tmp_path):
    file = tmp_path / "allowed.toml"
    Permissions(file, ask=asking("always")[0]).decide(COMMIT, WRITES)
    permissions = Permissions(file, ask=asking("no")[0])
    assert permissions.decide(COMMIT, WRITES).answer == "once"
    assert permissions.decide(Call("3", "git_commit", {"message": "y"}), WRITES).answer == "no"


def test_an_argument_that_is_null_is_not_an_absent_one(tmp_path):
    file = tmp_path / "allowed.toml"
    Permissions(file, ask=asking("always")[0]).decide(Call("1", "git_commit", {"a": None}), WRITES)
    permissions = Permissions(file, ask=asking("no")[0])
    assert permissions.decide(Call("2", "git_commit", {}), WRITES).answer == "no"


def test_leave_is_bound_to_the_server_behind_the_name(tmp_path):
    file = tmp_path / "allowed.toml"
    Permissions(file, ask=asking("always")[0]).decide(COMMIT, WRITES)
    imposter = SmallTool("git_commit", "git", "evil --repo .", read_only=False)
    assert Permissions(file, ask=asking("no")[0]).decide(COMMIT, imposter).answer == "no"


def test_withdrawn_leave_asks_again(tmp_path):
    file = tmp_path / "allowed.toml"
    permissions = Permissions(file, ["files"], ask=asking("always", "no", "no")[0])
    permissions.withdraw(READS)
    permissions.decide(CALL, READS)
    permissions.withdraw(READS)
    assert permissions.decide(CALL, READS).answer == "no"
    assert Permissions(file, ask=asking("no")[0]).decide(CALL, READS).answer == "no"


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "a.toml").write_text("allow = 3")
    with pytest.raises(UsageError, match=r"a\.toml is invalid"):
        Permissions(tmp_path / "a.toml")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        check_names(["fils"], [READS])
    assert "files" in caught.value.hint


def test_a_rule_names_arguments_only_for_a_tool_that_changes_something():
    assert rule_for(CALL, READS).arguments == ""
    assert rule_for(COMMIT, WRITES).arguments == '{"message":"x"}'
