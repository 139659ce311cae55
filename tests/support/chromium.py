"""A plugin: one real Chromium for all tests of a process, which can start Playwright only once."""

import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

# Long, for machines that are busy with other tests.
TIMEOUT_MS = 15_000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    try:
        from playwright import sync_api as playwright
    except ImportError:
        _missing("the package `playwright` is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        _missing("there is no Chromium on this machine (Debian: `apt install chromium`)")
    playwright.expect.set_options(timeout=TIMEOUT_MS)
    with playwright.sync_playwright() as started:
        # Chromium refuses to run as root with its sandbox.
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def _missing(reason: str) -> NoReturn:
    """Fail in CI, which must run these tests; elsewhere skip them, with a warning."""
    if os.environ.get("CI"):
        pytest.fail(f"the page's tests cannot run: {reason}", pytrace=False)
    warnings.warn(f"the page's tests were skipped: {reason}", stacklevel=2)
    pytest.skip(reason)
