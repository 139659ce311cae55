"""Server-sent events: the examples of the standard, and what real servers send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.engines.sse import Event, events


def read(*pieces: bytes) -> list[tuple[str, str]]:
    return [(event.name, event.data) for event in events(pieces)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", ["one", "two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b": a keep-alive\n\n:\n\ndata: one\n\n", ["one"]),
        (b"data: one\ndata: more\ndata\ndata: of it\n\n", ["one\nmore\n\nof it"]),
        (b"data:no space\n\ndata:  two spaces\n\n", ["no space", " two spaces"]),
        (b"id: 7\nretry: 10\ndata: one\nunknown: field\n\n", ["one"]),
        (b"event: ping\n\ndata: one\n\n", ["one"]),
        (b"data: the last line has no end", ["the last line has no end"]),
        (b"data: \n\n", [""]),
        (
            "data: {\"text\": \"\u2028 \u0085 \x0b\"}\n\n".encode(),
            ["{\"text\": \"\u2028 \u0085 \x0b\"}"],
        ),
        (b"", []),
    ],
)  # fmt: skip
def test_events_are_those_of_the_standard(stream: bytes, expected: list[str]) -> None:
    assert [data for _, data in read(stream)] == expected


def test_an_event_has_its_name_and_the_next_one_not() -> None:
    assert read(b"event: error\ndata: no\n\ndata: yes\n\n") == [("error", "no"), ("message", "yes")]


@given(
    st.lists(st.text("abc:🦊\u2028 {}", max_size=8), max_size=5),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.data(),
)
def test_it_does_not_matter_where_the_bytes_are_cut(
    values: list[str], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(b"data: " + value.encode() + end + end for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [
        stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    assert list(events(pieces)) == [Event("message", value) for value in values]
