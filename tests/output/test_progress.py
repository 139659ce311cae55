"""Progress displays: a live one on a terminal, plain lines elsewhere, nothing harmful in either."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from support.worlds import Stream, make_world

from llmchat.output.progress import ByteProgress, StatusLine, StepProgress
from llmchat.settings import World

LINE_REMOVED = "\r\x1b[1A\x1b[2K"
CLIPBOARD = "\x1b]52;c;eA==\a"


@pytest.fixture
def piped(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def terminal(tmp_path: Path) -> World:
    return make_world(tmp_path, tty=True)


def written(world: World) -> str:
    assert isinstance(world.stderr, Stream)
    return world.stderr.getvalue()


def test_a_pull_without_a_terminal_prints_a_line_a_step(piped: World) -> None:
    progress = ByteProgress(piped)
    progress.expect("org/model", 5_000_200)
    for name, size in (("model.safetensors", 5_000_000), ("config.json", 200)):
        progress.start(name, size)
        progress.advance(size)
        progress.done()
    progress.start("converting", None)
    progress.note("something to know")
    progress.close()
    assert written(piped).splitlines() == [
        "model.safetensors (5.0 MB)",
        "config.json (200 bytes)",
        "converting",
        "something to know",
    ]


def test_a_terminal_that_cannot_redraw_gets_plain_lines(tmp_path: Path) -> None:
    dumb = make_world(tmp_path, tty=True, TERM="dumb")
    ByteProgress(dumb).start("model.safetensors", 5_000_000)
    assert written(dumb) == "model.safetensors (5.0 MB)\n"


def test_a_pull_on_a_terminal_is_one_bar_that_goes_away(terminal: World) -> None:
    progress = ByteProgress(terminal)
    progress.expect("org/model", 4_000_000)
    for name in ("model-1.safetensors", "model-2.safetensors"):
        progress.start(name, 2_000_000)
        progress.advance(1_500_000)
        progress.done()
    progress.start("converting", None)
    progress.done()
    progress.close()
    drawn = written(terminal)
    assert "org/model" in drawn and "3.0/4.0 MB" in drawn and "converting" in drawn
    assert "model-1" not in drawn and drawn.endswith(LINE_REMOVED)


def test_a_single_step_needs_no_announcement(terminal: World) -> None:
    progress = ByteProgress(terminal)
    progress.start("model.safetensors", 2_000_000)
    progress.advance(1_000_000)
    progress.done()
    assert "model.safetensors" in written(terminal) and "1.0/2.0 MB" in written(terminal)


@pytest.mark.parametrize("shown", [True, False], ids=["beside a bar", "without a bar"])
def test_a_server_cannot_drive_the_terminal_with_a_note(terminal: World, shown: bool) -> None:
    progress = ByteProgress(terminal)
    if shown:
        progress.expect(f"org/{CLIPBOARD}model", 1000)
        progress.start(f"{CLIPBOARD}converting", None)
    progress.note(f"the server {CLIPBOARD}is busy")
    progress.close()
    assert "the server ]52;c;eA==is busy" in written(terminal)
    assert "\x1b]" not in written(terminal) and "\a" not in written(terminal)


def test_a_repeated_note_is_printed_once(piped: World) -> None:
    progress = ByteProgress(piped)
    for line in ("busy", "busy", "over"):
        progress.note(line)
    assert written(piped) == "busy\nover\n"


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a minute later than the one before."""
    clock = iter(range(0, 6000, 60))
    monkeypatch.setattr(
        "llmchat.output.progress.time", SimpleNamespace(perf_counter=lambda: next(clock))
    )


@pytest.mark.usefixtures("minutes")
def test_steps_on_a_terminal_are_one_line_with_the_time_left(terminal: World) -> None:
    progress = StepProgress(terminal, 5)
    progress.begin("a", 5, kept=2)
    for task in ("t", "u"):
        progress.started(task)
        progress.done()
    progress.clear()
    drawn = written(terminal)
    assert drawn.index("a  t  3 to go") < drawn.index("a  u  2 to go, about 2 min")
    assert drawn.endswith(LINE_REMOVED)


def test_steps_without_a_terminal_are_a_line_a_model(piped: World) -> None:
    progress = StepProgress(piped, 5)
    progress.begin("a", 3, kept=2)
    progress.started("t")
    progress.done()
    progress.begin("b", 2)
    assert written(piped) == "a: 1 item, 2 kept from before\nb: 2 items\n"


@pytest.mark.parametrize("tty", [True, False])
def test_quiet_steps_print_nothing(tmp_path: Path, tty: bool) -> None:
    world = make_world(tmp_path, tty=tty)
    progress = StepProgress(world, 1, quiet=True)
    progress.begin("a", 1)
    progress.started("t")
    progress.done()
    progress.clear()
    assert written(world) == ""


def test_a_kept_status_line_stays_on_the_screen(terminal: World) -> None:
    status = StatusLine(terminal, keep=True)
    status.show("step 1/2", 1, 2)
    status.print("a lasting line")
    status.show("step 2/2", 2, 2)
    status.close()
    drawn = written(terminal)
    assert drawn.index("a lasting line") < drawn.index("step 2/2")
    assert not drawn.endswith(LINE_REMOVED)
