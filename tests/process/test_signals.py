"""A signal ends the program in order wherever it arrives."""

import subprocess
import sys

import pytest

# The handler of a signal runs between two instructions of Python, here within the callback.
LOST = """
import os, signal, sys, time, weakref
from llmchat.process.signals import orderly_end

class Thing: pass

def send(_):
    os.kill(os.getpid(), {number})
    sum(range(10))

with orderly_end():
    try:
        thing = Thing()
        kept = weakref.ref(thing, send)
        del thing
        print("goes on", flush=True)
        time.sleep(20)
    finally:
        print("in order", flush=True)
"""
STEP = """
import asyncio, os, signal
from llmchat.process.signals import orderly_end

async def step():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))
        print("step ends", flush=True)
        await asyncio.sleep(20)
    finally:
        print("in order", flush=True)

with orderly_end():
    asyncio.run(step())
"""
OTHER = """
from llmchat.process.signals import orderly_end

class Thing:
    def __del__(self): raise ValueError("mine")

with orderly_end():
    Thing()
"""


@pytest.mark.parametrize(("number", "code"), [("signal.SIGTERM", 143), ("signal.SIGHUP", 129)])
def test_a_signal_in_the_callback_of_a_weak_reference_is_not_lost(number: str, code: int) -> None:
    script = LOST.format(number=number)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("goes on\nin order\n", "")
    assert done.returncode == code


def test_a_signal_does_not_interrupt_a_step_of_an_event_loop() -> None:
    """As in the prompt: a step that is lost hangs the program when the loop is closed."""
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("step ends\nin order\n", "")
    assert done.returncode == 143


def test_other_exceptions_of_callbacks_are_reported_as_before() -> None:
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True)
    assert "ValueError: mine" in done.stderr and done.returncode == 0
