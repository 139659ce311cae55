"""Guards of untrusted files: any error of a parser becomes one line, and others pass through."""

import errno
import struct
from pathlib import Path

import pytest

from llmchat.errors import IntegrityError, Mismatch, OutOfResources, UsageError
from llmchat.parse_guard import reading, reason


class PanicException(BaseException):
    """As pyo3 names it."""


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("bad"), TypeError("x"), KeyError("shape"), RecursionError(),
        AttributeError("a\nb"), PanicException("at 3"), OSError(errno.EIO, "broken"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "start"),
    ],
    ids=lambda fault: type(fault).__name__,
)  # fmt: skip
def test_any_fault_becomes_the_files_name_and_one_line(fault: BaseException) -> None:
    with pytest.raises(IntegrityError) as caught, reading(Path("/some/where/config.json")):
        raise fault
    assert caught.value.message.startswith("config.json cannot be read: ")
    assert "\n" not in caught.value.message and caught.value.__cause__ is fault


@pytest.mark.parametrize(
    "passing",
    [
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        UsageError("ours"),
        OSError(errno.ENOSPC, "full"),
    ],
)
def test_interrupts_our_own_errors_and_a_full_disk_pass(passing: BaseException) -> None:
    with pytest.raises(type(passing)) as caught, reading("f"):
        raise passing
    assert caught.value is passing


def test_the_innermost_guard_names_the_file() -> None:
    with (
        pytest.raises(Mismatch, match="inner cannot be read: bad"),
        reading("outer"),
        reading("inner", Mismatch),
    ):
        raise ValueError("bad")


def test_memory_that_runs_out_is_told_as_such() -> None:
    with pytest.raises(OutOfResources, match="memory ran out while f was read"), reading("f"):
        raise MemoryError


def test_a_file_that_ends_too_early_is_named_as_such() -> None:
    expected = pytest.raises(IntegrityError, match=r"^a\.bin cannot be read: it ends too early")
    with expected, reading("a.bin"):
        struct.unpack_from("<q", b"abc")


def test_a_long_or_unprintable_reason_is_cut_and_cleaned() -> None:
    assert reason(ValueError("x" * 5000 + "\nmore")) == "x" * 160 + "…"
    assert reason(ValueError("a\x1b]52;c;b")) == "a�]52;c;b"
