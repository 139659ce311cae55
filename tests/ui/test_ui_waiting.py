"""What is on the screen while a prompt is read, and how soon Ctrl-C is acknowledged."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import save_tiny, tiny_config
from support.worlds import Stream, make_world

from llmchat.engines import Finish, Prefill, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.prefill import PREFILL_CHUNK, first_chunk, prefill_chunk
from llmchat.prompt import Prompt
from llmchat.ui.prefill_progress import PrefillProgress

GREEDY = Sampling(temperature=0, max_tokens=4)
INTERRUPTED = """
import hashlib, os, signal, threading
from llmchat.ui.prefill_progress import on_interrupt

order = []
with on_interrupt(lambda: order.append("told")):
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        # One long call into C, which a signal does not end.
        hashlib.sha256(bytes(1_000_000_000))
        order.append("done")
        threading.Event().wait(10)
    except KeyboardInterrupt:
        order.append("interrupted")
print(*order)
"""


def test_the_line_is_written_over_itself_and_goes(tmp_path: Path) -> None:
    stream = Stream(tty=True)
    line = PrefillProgress(stream, make_world(tmp_path, TERM="xterm"))
    line.feed(Prefill(0, 2369))
    line.feed(Prefill(1200, 2369))
    line.stopping()
    line.clear()
    line.clear()
    line.stopping()
    assert (
        stream.getvalue()
        == "".join(
            f"\r\x1b[K\x1b[2m{text}\x1b[0m"
            for text in ("reading 0 / 2,369 tokens", "reading 1,200 / 2,369 tokens", "stopping …")
        )
        + "\r\x1b[K"
    )


@pytest.mark.parametrize(
    ("tty", "term", "shown"), [(False, "xterm", True), (True, "dumb", True), (True, "xterm", False)]
)
def test_nothing_is_written_where_it_could_not_be_taken_back(
    tty: bool, term: str, shown: bool, tmp_path: Path
) -> None:
    stream = Stream(tty=tty)
    line = PrefillProgress(stream, make_world(tmp_path, TERM=term), shown=shown)
    line.feed(Prefill(1, 2))
    line.clear()
    assert stream.getvalue() == ""


def test_ctrl_c_is_acknowledged_while_c_code_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["told", "interrupted"] or done.stdout.split() == [
        "told",
        "done",
        "interrupted",
    ], done


def test_a_pass_takes_about_as_long_at_every_speed() -> None:
    assert [prefill_chunk(speed) for speed in (1.0, 60.0, 300.0, 1500.0, 1e6)] == [
        64,
        64,
        448,
        1024,
        PREFILL_CHUNK,
    ]
    assert [first_chunk(size) for size in (135e6, 1.1e9, 7e9)] == [1024, 576, 64]


def test_a_long_prompt_tells_how_far_it_is_and_a_short_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path, tiny_config(max_position_embeddings=1024))
    monkeypatch.setattr("llmchat.engines.transformers.prefill.PREFILL_CHUNK", 100)
    engine = TransformersEngine(base, weights="fp32", device="cpu")
    text = "fox " * 300
    total = len(engine.encode(Prompt(text, ())))
    *events, finish = engine.stream(Prompt(text, ()), GREEDY)
    told = [event for event in events if isinstance(event, Prefill)]
    assert told == [Prefill(read, total) for read in range(0, total, 100)] and len(told) > 2
    assert isinstance(finish, Finish) and finish.reason != "cancelled"
    # What is in the cache already counts as read, and is not told again.
    assert not any(
        isinstance(event, Prefill) for event in engine.stream(Prompt(text + "dog", ()), GREEDY)
    )
