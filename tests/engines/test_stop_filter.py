"""Stop strings, however the text is cut into pieces."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmchat.engines.stream_filters import StopFilter

STOPS = ("### Instruction:", "\nHuman:", "</s>", "##")


def run(pieces: list[str], stops: tuple[str, ...] = STOPS) -> tuple[str, bool]:
    stop_filter = StopFilter(stops)
    shown = "".join(stop_filter.feed(piece) for piece in pieces)
    return shown + stop_filter.flush(), stop_filter.stopped


def whole(text: str, stops: tuple[str, ...] = STOPS) -> tuple[str, bool]:
    """What any split must give: the text up to the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def test_every_split_in_two_and_three_gives_the_same() -> None:
    for text in (
        "Paris.\n\n### Instruction: more",
        "a # b ## c",
        "ends in #",
        "\nHuma\nHuman: x",
        "no stop at all",
        "</s>",
        "<</s>>",
    ):
        for first in range(len(text) + 1):
            for second in range(first, len(text) + 1):
                assert run([text[:first], text[first:second], text[second:]]) == whole(text), (
                    text,
                    first,
                    second,
                )


def test_no_part_of_a_stop_string_ever_gets_out() -> None:
    stop_filter = StopFilter(("\nHuman:",))
    assert [stop_filter.feed(piece) for piece in ("Yes.", "\n", "Hu", "man", ":", " hi")] == [
        "Yes.",
        "",
        "",
        "",
        "",
        "",
    ]
    assert stop_filter.stopped


def test_what_was_held_back_comes_out_when_it_is_no_stop_string() -> None:
    stop_filter = StopFilter(("\nHuman:",))
    assert [stop_filter.feed(piece) for piece in ("\nHum", "ble")] == ["", "\nHumble"]
    assert stop_filter.feed("\nHu") == "" and stop_filter.flush() == "\nHu"


alphabet = st.text(alphabet="ab#\nH:u ", max_size=30)


@settings(max_examples=500)
@example(["ab#", "c"], ["ab#c", "#"])
@given(
    st.lists(alphabet, max_size=8),
    st.lists(st.text(alphabet="ab#\nH:u ", min_size=1, max_size=4), max_size=3),
)
def test_any_split_of_any_text(pieces: list[str], stops: list[str]) -> None:
    assert run(pieces, tuple(stops)) == whole("".join(pieces), tuple(stops))
