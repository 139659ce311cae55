"""The sources below an answer: numbered, and clickable where the terminal knows hyperlinks."""

from pathlib import Path

from support.worlds import make_world

from llmchat.settings import World
from llmchat.tools.sources import NumberedSource, Place, Source, Sources
from llmchat.ui.source_lines import line_of, link_of, print_sources

PASSAGE = NumberedSource(2, "a b.md › Top", "/x/a b.md", Place(5, 80, 0.5, "text"))


def shown(world: World) -> str:
    print_sources(world, [PASSAGE], 80)
    return world.stdout.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_passage_is_named_with_its_document_heading_and_place() -> None:
    assert line_of(PASSAGE) == "[2] a b.md › Top (characters 5-80)"


def test_a_terminal_with_hyperlinks_can_open_a_source(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, FORCE_HYPERLINK="1", TERM="xterm")
    assert shown(world) == (
        "\x1b[2m\x1b]8;;file:///x/a%20b.md\x1b\\[2] a b.md › Top (characters 5-80)"
        "\x1b]8;;\x1b\\\x1b[0m\n"
    )


def test_other_terminals_and_pipes_get_the_line_alone(tmp_path: Path) -> None:
    line = "[2] a b.md › Top (characters 5-80)"
    assert shown(make_world(tmp_path, FORCE_HYPERLINK="1")) == f"{line}\n"
    world = make_world(tmp_path, tty=True, TERM="xterm")
    assert shown(world) == f"\x1b[2m{line}\x1b[0m\n"


def test_an_address_cannot_end_the_escape_sequence(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, FORCE_HYPERLINK="1", TERM="xterm")
    print_sources(world, [NumberedSource(1, "T", "http://a/\x1b\\\x07\u202e")], 80)
    link = world.stdout.getvalue().split(";;")[1].split("\x1b")[0]  # type: ignore[attr-defined]
    assert link == "http://a/%1B%5C%07%E2%80%AE"


def test_a_relative_path_is_opened_from_the_current_folder() -> None:
    assert link_of("a.md") == f"file://{Path.cwd()}/a.md"
    assert link_of("https://a.example/b") == "https://a.example/b"


def test_each_passage_of_a_document_has_a_number_of_its_own() -> None:
    sources, first, second = Sources(), Place(0, 5, 0.5, "a"), Place(5, 9, 0.5, "b")
    numbers = [sources.number(Source("d", "d.md", place)) for place in (first, second, first)]
    assert numbers == [1, 2, 1]
    assert [one.n for one in sources.take()] == [1, 2]


def test_numbers_of_earlier_messages_are_kept() -> None:
    sources = Sources()
    sources.know(3, Source("d", "d.md", Place(0, 5, 0.5, "a")))
    assert sources.take() == ()
    assert sources.number(Source("e", "http://e")) == 4
    assert sources.number(Source("d", "d.md", Place(0, 5, 0.9, "a"))) == 3
