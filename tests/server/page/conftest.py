"""A server for a real Chromium to visit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site
from support.page_server import Script, serving


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
