"""Finding and importing plugins, whatever they add."""

import importlib.metadata
import sys
from pathlib import Path

import pytest
from support.plugin_packages import Packages

from llmchat import plugins
from llmchat.plugins import PluginError
from llmchat.plugins.installed import offers_on
from llmchat.plugins.printing import printing_to_stderr

GREETING = "@hookimpl\ndef exporter(name): return lambda session, records: name\n"
FAULT = "the plugin `llmchat-a` does not work (exporter.x): "


def test_metadata_alone_tell_what_there_is(packages: Packages) -> None:
    packages.install("llmchat-a", "1 / 0", "exporter.x", "command.y = llmchat_a:y", summary="An a")
    (x,) = plugins.offers("exporter")
    (y,) = plugins.offers("command")
    assert (str(x), x.target, x.package, x.version) == (
        "exporter.x",
        "llmchat_a",
        "llmchat-a",
        "1.0",
    )
    assert (y.name, y.target, y.module, y.summary) == ("y", "llmchat_a:y", "llmchat_a", "An a")
    assert plugins.offers("engine") == [] and "llmchat_a" not in sys.modules


def test_offers_equal_those_of_importlib_metadata() -> None:
    """In all packages of this environment, for every group."""
    theirs = {
        (entry.name, entry.value)
        for entry in importlib.metadata.entry_points(group="llmchat.plugins")
    }
    ours = {(str(one), one.target) for one in offers_on(sys.path)}
    assert ours == theirs


def test_a_package_that_is_there_twice_counts_once(packages: Packages, tmp_path: Path) -> None:
    packages.install("llmchat-a", GREETING, "exporter.x")
    older = tmp_path / "older"
    (older / "llmchat_a-0.1.dist-info").mkdir(parents=True)
    entries = "[llmchat.plugins]\nexporter.old = llmchat_a\n"
    (older / "llmchat_a-0.1.dist-info/entry_points.txt").write_text(entries)
    found = offers_on([str(packages.folder), str(older), str(tmp_path / "missing")])
    assert [str(one) for one in found] == ["exporter.x"]


def test_damaged_metadata_break_nothing(tmp_path: Path) -> None:
    facts = tmp_path / "odd-1.dist-info"
    facts.mkdir()
    (facts / "entry_points.txt").write_bytes(
        b"[llmchat.plugins]\n# a comment = x\nnonsense\n\xff = \xfe\nexporter.x = odd [extra]\n"
    )
    found = offers_on([str(tmp_path)])
    assert {(str(one), one.target, one.package) for one in found} == {
        ("\ufffd", "\ufffd", "odd"),
        ("exporter.x", "odd", "odd"),
    }


def test_a_hook_takes_the_arguments_that_it_needs(packages: Packages) -> None:
    packages.install("llmchat-a", GREETING, "exporter.x", "exporter.y")
    made = [plugins.make(one)(None, []) for one in plugins.offers("exporter")]
    assert made == ["x", "y"]


def test_an_object_in_a_module_can_have_the_hook(packages: Packages) -> None:
    code = "class Mine:\n    @hookimpl\n    def exporter(self): return 5\nmine = Mine()\n"
    packages.install("llmchat-a", code, "exporter.x = llmchat_a:mine")
    assert plugins.make(plugins.offers("exporter")[0]) == 5


def test_of_two_with_one_name_the_first_package_counts(packages: Packages) -> None:
    packages.install("llmchat-b", GREETING, "exporter.x")
    packages.install("llmchat-a", GREETING, "exporter.x")
    assert [one.package for one in plugins.offers("exporter")] == ["llmchat-a"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def", "SyntaxError: invalid syntax"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("class Panic(BaseException): ...\nraise Panic('no')", "Panic: no"),
        ("", "llmchat_a does not implement the hook `exporter`"),
        ("@hookimpl\ndef exporter(): pass", "its hook `exporter` returned nothing for `x`"),
        ("@hookimpl\ndef exporter(): raise OSError('a\\nb')", "OSError: a"),
        ("@hookimpl\ndef exportr(): return 1", "PluginValidationError: unknown hook 'exportr'"),
        ("@hookimpl\ndef exporter(what): return 1", "PluginValidationError: Plugin 'llmchat_a'"),
    ],
)
def test_any_fault_is_one_line_that_names_the_package(
    packages: Packages, code: str, told: str
) -> None:
    packages.install("llmchat-a", code, "exporter.x")
    with pytest.raises(PluginError) as caught:
        plugins.make(plugins.offers("exporter")[0])
    assert caught.value.message.startswith(FAULT + told) and "\n" not in caught.value.message
    assert "LLMCHAT_NO_PLUGINS=1" in caught.value.hint


@pytest.mark.parametrize(
    ("entry", "told", "hint"),
    [
        ("exportr.x", "unknown kind of plugin `exportr`", "did you mean `exporter`?"),
        ("zzz.x", "unknown kind of plugin `zzz`", "the kinds are command, slash"),
        ("exporter", "its entry point has no name", "name it exporter.NAME"),
    ],
)
def test_a_wrong_name_of_an_entry_point_is_explained(
    packages: Packages, entry: str, told: str, hint: str
) -> None:
    packages.install("llmchat-a", GREETING, entry)
    (offer,) = plugins.installed()
    with pytest.raises(PluginError, match=told) as caught:
        plugins.check(offer)
    assert caught.value.hint.startswith(hint) and plugins.offers("exporter") == []


def test_an_exception_is_traced_to_its_plugin(packages: Packages) -> None:
    code = "def fail(call): call()\n" + GREETING
    packages.install("llmchat-a", code, "exporter.x")
    import llmchat_a

    with pytest.raises(ZeroDivisionError) as caught:
        llmchat_a.fail(lambda: 1 / 0)
    found = plugins.fault_in(caught.value)
    assert found and found.message == (
        "the plugin `llmchat-a` failed: ZeroDivisionError: division by zero"
    )
    assert plugins.fault_in(ValueError("elsewhere")) is None


def test_prints_of_an_import_and_of_a_hook_go_to_stderr(
    packages: Packages, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "print('hello from the import')\n@hookimpl\ndef exporter():\n"
        "    print('hello from the hook')\n    return 1\n"
    )
    packages.install("llmchat-a", code, "exporter.x")
    assert plugins.make(plugins.offers("exporter")[0]) == 1
    print("ours")
    out, err = capsys.readouterr()
    assert (out, err) == ("ours\n", "hello from the import\nhello from the hook\n")


def test_redirections_that_overlap_restore_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = printing_to_stderr(), printing_to_stderr()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    print("theirs")
    other.__exit__(None, None, None)
    print("ours")
    assert capsys.readouterr() == ("ours\n", "theirs\n")


def test_ctrl_c_in_an_import_is_no_fault_of_the_plugin(packages: Packages) -> None:
    packages.install("llmchat-a", "raise KeyboardInterrupt", "exporter.x")
    with pytest.raises(KeyboardInterrupt):
        plugins.make(plugins.offers("exporter")[0])


def test_plugins_can_be_switched_off(packages: Packages) -> None:
    packages.install("llmchat-a", GREETING, "exporter.x")
    plugins.configure({"LLMCHAT_NO_PLUGINS": "1"})
    try:
        assert plugins.names("exporter") == [] and len(plugins.installed()) == 1
    finally:
        plugins.configure({})
    assert plugins.names("exporter") == ["x"]
