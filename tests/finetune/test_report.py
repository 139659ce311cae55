"""The training report is one page that holds whatever data and answers contain, as text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.finished_runs import AWKWARD, outcome

from llmchat.finetune import report
from llmchat.finetune.types import Sample


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_everything_from_outside_is_text_on_the_page(tmp_path: Path) -> None:
    report.write_report(outcome(Sample(*[AWKWARD] * 4)), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>\n") and "script" not in page.tags
    # Four samples, the heading and the title hold it unchanged.
    assert page.texts.count(AWKWARD) >= 4 + 2 and "1,000: 900 trained on" in text
    assert page.tags >= {"svg", "polyline", "details"} and "src=" not in text
    addresses = set(re.findall(r"https?://[^\s\"]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of SVG, which nothing fetches"
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_without_pillow_has_its_curves_and_a_loss_svg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.showing, "has_pillow", lambda: False)
    report.write_report(outcome(), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<polyline" in text and "<td>2</td><td>1</td><td>1.5</td>" in text
    assert "Before and after" not in text
    assert (tmp_path / "loss.svg").read_text("utf-8").startswith("<svg")
    assert not (tmp_path / "loss.png").exists()
