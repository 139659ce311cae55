"""The report of a fine-tune in Chromium: readable on a phone, light and dark, without requests."""

from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import outcome

from llmchat.finetune.report import write_report
from llmchat.output.plots.figures import Bar, BarChart, Figure
from llmchat.output.plots.svg import PAGE_STYLE, figure_html

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "shown"), [(1000, "wide"), (360, "narrow")])
def test_the_report_has_a_readable_chart(
    chromium: Any, tmp_path: Path, width: int, shown: str, scheme: str
) -> None:
    write_report(outcome(), tmp_path)
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: problems.append(request.url))
    address = f"file://{tmp_path}/report.html"
    page.goto(address)
    assert problems == [address]
    charts = page.locator(".plot svg")
    assert [one.get_attribute("class") for one in charts.all() if one.is_visible()] == [shown]
    seen = page.locator(f".plot svg.{shown}")
    assert seen.get_attribute("role") == "img" and seen.locator("desc").text_content()
    heights = seen.locator("text").evaluate_all(
        "all => all.map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 11
    # Text takes the colour of the page, so it is visible in both schemes.
    colours = seen.locator("text").evaluate_all("all => all.map(t => getComputedStyle(t).fill)")
    assert set(colours) == {page.evaluate("getComputedStyle(document.body).color")}
    inside = seen.locator("text").evaluate_all(
        "all => all.every(t => { const a = t.getBoundingClientRect(),"
        " b = t.ownerSVGElement.getBoundingClientRect();"
        " return a.left >= b.left - 2 && a.right <= b.right + 2 })"
    )
    assert inside
    page.locator("summary").click()
    assert page.get_by_role("cell", name="1.5", exact=True).is_visible()
    context.close()


@pytest.mark.parametrize("width", [360, 1000])
def test_values_and_labels_of_bars_do_not_overlap(chromium: Any, width: int) -> None:
    bars = (Bar("a-model-with-a-long-name+adapter:0.5", 81.2, 70.1, 89.9), Bar("b", 12.5, 7, 21))
    figure = Figure("", (BarChart("quiz", "%", bars, end=100),))
    context = chromium.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_content(f"<style>{PAGE_STYLE}</style>{figure_html(figure)}")
    boxes = page.locator(".plot svg:visible text").evaluate_all(
        "all => all.map(t => { const b = t.getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom] })"
    )
    overlaps = [
        (one, other)
        for number, one in enumerate(boxes)
        for other in boxes[:number]
        # Line boxes of neighbouring rows may touch.
        if one[0] < other[2]
        and other[0] < one[2]
        and one[1] + 4 < other[3]
        and other[1] + 4 < one[3]
    ]
    assert len(boxes) >= 7 and not overlaps
    context.close()
