"""A real Chromium, and a server for it to visit."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.page_browser import TIMEOUT_MS, Site
from support.page_server import Script, serving


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the package `playwright` is not installed"
    )
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: `apt install chromium`)")
    playwright.expect.set_options(timeout=TIMEOUT_MS)
    with playwright.sync_playwright() as started:
        # As root, Chromium has no sandbox to offer.
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def site(chromium: Any, script: Script) -> Iterator[Site]:
    with serving(script) as url:
        site = Site(chromium, url, script)
        yield site
        site.leave()


@pytest.fixture
def keeping_site(chromium: Any, script: Script, tmp_path: Path) -> Iterator[Site]:
    """With history on the server."""
    with serving(script, tmp_path / "web.db") as url:
        site = Site(chromium, url, script)
        yield site
        site.leave()
