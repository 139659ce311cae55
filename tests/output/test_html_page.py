"""HTML pages: text is escaped whatever it holds, and a missing value is an error."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from llmchat.output.html_page import fill


class Texts(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("templates") / "page.html"
    path.write_text("<p title='{{ title }}'>{{ title }}</p>\n", "utf-8")
    return path


@given(st.text().filter(lambda text: "\r" not in text and "\0" not in text))
def test_any_text_reads_back_from_the_page(template: Path, title: str) -> None:
    page = Texts(fill(template, title=title))
    assert page.tags == ["p"] and page.text == f"{title}\n"


def test_a_missing_value_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="title"):
        fill(template)
