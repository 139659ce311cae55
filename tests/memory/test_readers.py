"""Files become text with sections."""

from pathlib import Path

import pytest

from llmchat.errors import UsageError
from llmchat.memory.readers import Document, read_document


def headings(document: Document) -> list[tuple[str, str]]:
    """Each heading with the first line of its section."""
    return [
        (one.heading, document.text[one.start : one.end].splitlines()[0])
        for one in document.sections
    ]


def test_markdown_has_a_section_for_each_heading() -> None:
    text = "intro\n# A #\ntext\n## B\n```sh\n# not a heading\n```\nC\n===\nend\n\nD\n---\n"
    assert headings(read_document(text.encode(), "a.md")) == [
        ("", "intro"),
        ("A", "# A #"),
        ("A > B", "## B"),
        ("C", "C"),
        ("C > D", "D"),
    ]


def test_rest_has_levels_by_first_use() -> None:
    text = "=====\nTitle\n=====\n\ntext\n\nOne\n---\n\nSub\n~~~\nx\n\nTwo\n---\ny\n"
    assert headings(read_document(text.encode(), "a.rst")) == [
        ("Title", "====="),
        ("Title > One", "One"),
        ("Title > One > Sub", "Sub"),
        ("Title > Two", "Two"),
    ]


def test_python_has_a_section_for_each_definition() -> None:
    text = "import os\n# About f.\n@cache\ndef f():\n    pass\n\nclass C:\n    def g(): ...\n"
    assert headings(read_document(text.encode(), "a.py")) == [
        ("", "import os"),
        ("f", "# About f."),
        ("C", "class C:"),
        ("C.g", "    def g(): ..."),
    ]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.c", "int x;\n/* a */\nstatic int add(int a)\n{\n}\nvoid *two() {\n}\n", ["add", "two"]),
        ("a.js", "export async function go(x) {\n}\nclass Cat {\n}\n", ["go", "Cat"]),
        ("a.go", "func (s *T) Run(x int) {\n}\ntype T struct {\n}\n", ["Run", "T"]),
        ("a.rs", "pub(crate) fn run() {}\nimpl Cat for X {\n}\n", ["run", "Cat"]),
        ("a.sh", "x=1\nrun() {\n}\n", ["run"]),
        ("broken.py", "def f(:\n  pass\n\ndef g():\n  pass\n", ["f", "g"]),
    ],
)  # fmt: skip
def test_other_code_is_cut_at_definitions(name: str, text: str, names: list[str]) -> None:
    found = [heading for heading, _ in headings(read_document(text.encode(), name)) if heading]
    assert found == names


def test_a_comment_above_a_definition_belongs_to_it() -> None:
    text = "int x;\n\n/* adds */\nint add(int a)\n{\n}\n"
    assert headings(read_document(text.encode(), "a.c"))[1] == ("add", "/* adds */")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\0def", "a.txt is a binary file"),
        (b"caf\xe9", "a.txt is not UTF-8 text: byte 0xe9 in line 1"),
    ],
)
def test_what_is_not_text_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_document(data, "a.txt")
    assert caught.value.message == message


def test_a_file_of_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    with pytest.raises(UsageError, match=r"is too large \(1,000 MB\)"):
        read_document(path, str(path))


def test_utf_16_and_line_ends_are_normalised() -> None:
    assert read_document("a\r\nb".encode("utf-16"), "a.txt").text == "a\nb"
    assert read_document(b"\xef\xbb\xbfa\rb", "a.txt").text == "a\nb"
