"""Running a tool: whatever it does ends in a result or in one line, and the chat goes on."""

import os
import signal
import threading
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.tools import Output, Source, ToolError
from llmchat.tools.running import MOST_KEPT, clean, run

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["n"],
    "additionalProperties": False,
}


class Doing:
    """A tool that does what the test wants."""

    group = name = "doing"
    origin = ""
    description = "Do something."
    read_only = True

    def __init__(self, work: Any, parameters: dict[str, Any] | None = None):
        self.work = work
        self.parameters = parameters if parameters is not None else {"type": "object"}

    def run(self, arguments: dict[str, Any], stop: Event) -> Any:
        return self.work(arguments, stop)


def returns(value: Any) -> Doing:
    return Doing(lambda arguments, stop: value)


def error_of(tool: Doing, arguments: Any = None, timeout_s: float = 20) -> str:
    finished = run(tool, arguments if arguments is not None else {}, timeout_s=timeout_s)
    assert "\n" not in finished.error
    return finished.error


def test_an_output_is_returned_with_its_sources() -> None:
    output = Output("text", (Source("a page", "http://x/"),), untrusted=True)
    finished = run(returns(output), {}, timeout_s=20)
    assert (finished.text, finished.sources, finished.untrusted) == ("text", output.sources, True)
    assert finished.error == finished.details == "" and 0 <= finished.seconds < 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, 'invalid arguments for doing: "n" is a required property'),
        ({"n": "3"}, 'invalid arguments for doing: n: "3" is not of type "integer"'),
        (
            {"n": 1, "names": ["a", 2]},
            'invalid arguments for doing: names.1: 2 is not of type "string"',
        ),
        ([1], "the arguments of doing must be an object"),
        ("{}", "the arguments of doing must be an object"),
    ],
)
def test_invalid_arguments_are_named_and_the_tool_does_not_run(arguments: Any, told: str) -> None:
    ran: list[Any] = []
    assert error_of(Doing(lambda *given: ran.append(given), SCHEMA), arguments) == told
    assert not ran


def test_an_unknown_argument_is_named() -> None:
    assert "`x`" in error_of(Doing(None, SCHEMA), {"n": 1, "x": 2}).replace("'", "`")


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#/missing"},
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "("}}},
        [],
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_used_is_one_line(schema: Any) -> None:
    told = error_of(Doing(None, schema), {})
    assert told.startswith("the parameters of doing are not a valid JSON Schema: ")


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(a+)+\1$", "^(?=a)(a|a)*$"])
def test_a_catastrophic_pattern_comes_to_an_end(pattern: str) -> None:
    """By backtracking, 2^200 steps."""
    tool = Doing(None, {"properties": {"a": {"pattern": pattern}}})
    assert "does not match" in error_of(tool, {"a": "a" * 200 + "b"})


def test_a_schema_with_a_cycle_or_with_100_000_properties_works() -> None:
    cycle = {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}
    assert error_of(Doing(lambda *_: Output(""), cycle), nested(50)) == ""
    many = {"properties": {f"p{n}": {"type": "string"} for n in range(100_000)}}
    assert "p99: 1 is not" in error_of(Doing(None, many), {"p99": 1})


@pytest.mark.parametrize("value", ["\ud800", nested(5000)], ids=["surrogate", "deep"])
def test_arguments_that_are_not_json_are_one_line(value: Any) -> None:
    assert "are not JSON" in error_of(Doing(None, SCHEMA), {"n": value})


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), ("text", "str"), (Output(b"x"), "bytes"), (3, "int")]
)
def test_rubbish_is_named(value: Any, kind: str) -> None:
    assert error_of(returns(value)) == f"the tool returned `{kind}` instead of text"


def raises(error: BaseException) -> Doing:
    def work(arguments: dict[str, Any], stop: Event) -> Output:
        raise error

    return Doing(work)


def test_a_tool_error_is_its_message() -> None:
    assert error_of(raises(ToolError("no such\x1b[31m file"))) == "no such file"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("two\nlines"), "the tool failed: TypeError: two lines"),
        (KeyError(), "the tool failed: KeyError"),
        (SystemExit(3), "the tool failed: SystemExit: 3"),
        (RecursionError("deep"), "the tool failed: RecursionError: deep"),
    ],
)
def test_a_bug_in_a_tool_is_one_line_with_its_traceback_apart(
    error: BaseException, told: str
) -> None:
    finished = run(raises(error), {}, timeout_s=20)
    assert finished.error == told
    assert "Traceback" in finished.details and "in work" in finished.details


def test_a_long_error_is_shortened() -> None:
    assert len(error_of(raises(ValueError("x" * 100_000)))) < 500


def waits_for_stop(arguments: dict[str, Any], stop: Event) -> Output:
    assert stop.wait(30)
    return Output("half")


def test_a_tool_that_is_too_slow_is_stopped_and_its_output_kept() -> None:
    finished = run(Doing(waits_for_stop), {}, timeout_s=0.1)
    assert finished.error == "doing was stopped after 0.1 s" and finished.text == "half"


def test_another_thread_can_stop_a_tool() -> None:
    stop = Event()
    threading.Timer(0.1, stop.set).start()
    finished = run(Doing(waits_for_stop), {}, timeout_s=30, stop=stop)
    assert finished.error == "doing was interrupted"


def test_a_tool_that_hangs_is_abandoned() -> None:
    release, ended = Event(), Event()

    def hangs(arguments: Any, stop: Event) -> None:
        release.wait(60)
        ended.set()

    told = error_of(Doing(hangs), timeout_s=0.1)
    assert told == "doing was stopped after 0.1 s, but still runs in the background"
    assert not ended.is_set()
    release.set()


def test_ctrl_c_stops_the_tool_and_is_raised_again() -> None:
    seen = Event()

    def work(arguments: dict[str, Any], stop: Event) -> Output:
        os.kill(os.getpid(), signal.SIGINT)
        if stop.wait(30):
            seen.set()
        return Output("")

    with pytest.raises(KeyboardInterrupt):
        run(Doing(work), {}, timeout_s=30)
    assert seen.wait(30)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bc\x1b(Breset", "reset"),
        ("a\x00b\x07c\x9b", "abc"),
        ("10%\r20%\r\nend", "10%\n20%\nend"),
        ("lone \ud800.", "lone \ufffd."),
        ("\u202eevil", "evil"),
        ("tab\tstays ü 漢 😀", "tab\tstays ü 漢 😀"),
        ("\x1b]never ends", ""),
    ],
)
def test_output_cannot_control_a_terminal(raw: str, cleaned: str) -> None:
    assert run(returns(Output(raw)), {}, timeout_s=20).text == cleaned


@given(st.text(st.characters(codec=None)))
def test_clean_text_is_printable_utf8(text: str) -> None:
    cleaned = clean(text)
    assert not set(cleaned) & {chr(code) for code in range(32)} - set("\n\t")
    assert clean(cleaned) == cleaned and cleaned.encode("utf-8") is not None


def test_more_than_is_kept_is_discarded_with_a_notice() -> None:
    text = run(returns(Output("x" * (MOST_KEPT + 5))), {}, timeout_s=20).text
    assert text.endswith("\n[5 more characters were discarded]") and len(text) < MOST_KEPT + 100
