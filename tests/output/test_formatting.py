"""Counts, sizes and durations as people read them."""

import pytest

from llmchat.output.formatting import byte_count, counted, duration


def test_one_is_singular_and_every_other_count_is_plural() -> None:
    assert [counted(count, "chat") for count in (0, 1, 2000)] == [
        "0 chats",
        "1 chat",
        "2,000 chats",
    ]
    assert [counted(count, "reply", "replies") for count in (1, 2)] == ["1 reply", "2 replies"]


@pytest.mark.parametrize(
    ("count", "text", "whole"),
    [
        (0, "0 bytes", "0 bytes"),
        (1, "1 byte", "1 byte"),
        (443, "443 bytes", "443 bytes"),
        (1_500, "1.5 kB", "2 kB"),
        (98_000_000, "98.0 MB", "98 MB"),
        (13_500_000_000, "13.5 GB", "13.5 GB"),
        (1_200_000_000_000, "1.2 TB", "1.2 TB"),
    ],
)
def test_bytes_are_in_decimal_units(count: int, text: str, whole: str) -> None:
    assert byte_count(count) == text
    assert byte_count(count, 0) == whole


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
