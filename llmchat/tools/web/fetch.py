"""The tool `web_fetch`."""

from threading import Event
from typing import Any

from llmchat.tools import Output, Source, ToolError
from llmchat.tools.sources import Sources
from llmchat.tools.web import child
from llmchat.tools.web.jobs import Job
from llmchat.tools.web.pages import Page
from llmchat.tools.web.settings import WebSettings

_KEPT = 4


class WebFetch:
    """Fetch a page as text."""

    group = "web"
    name = "web_fetch"
    origin = ""
    description = (
        "Read a page of the web as text, given its http(s) address. A long page comes in parts:"
        " `start` continues it."
    )
    parameters = {
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "minLength": 1,
                "maxLength": 8000,
                "description": "Address of the page.",
            },
            "start": {
                "type": "integer",
                "minimum": 0,
                "description": "Character at which to continue, as the last part says.",
            },
        },
        "required": ["url"],
        "additionalProperties": False,
    }
    read_only = True

    def __init__(self, settings: WebSettings, sources: Sources):
        self._settings, self._sources = settings, sources
        # The last pages, so that their next parts need no further request.
        self._pages: dict[str, Page] = {}

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        """A part of a page behind its number, title and address. Raises ToolError."""
        url, start = str(arguments["url"]).strip(), int(arguments.get("start", 0))
        page = self._pages.get(url) if start else None
        if page is None:
            page = fetch(url, self._settings, stop)
            self._keep(url, page)
        # Models often write `start: 0`, which must not lose the place of a fragment.
        part, note = part_of(page, start or page.place, self._settings)
        source = Source(page.title or page.url, page.url)
        head = f"[{self._sources.number(source)}] {source.title}\n{page.url}"
        return Output(f"{head}\n{note}\n\n{part}", (source,), untrusted=True)

    def _keep(self, url: str, page: Page) -> None:
        self._pages[url] = page
        while len(self._pages) > _KEPT:
            self._pages.pop(next(iter(self._pages)))


def fetch(url: str, settings: WebSettings, stop: Event) -> Page:
    """A page as text. Raises ToolError, or NetworkError in offline mode."""
    page = child.run(Job("fetch", url, settings.access()), settings, stop).page
    if page is None:
        raise ToolError("the page has no text")
    return page


def part_of(page: Page, start: int, settings: WebSettings) -> tuple[str, str]:
    """The part of a page from a character on, which ends with a line, and a note on where it is."""
    whole = len(page.text)
    if start >= whole:
        raise ToolError(f"the page ends at character {whole:,}; start {start:,} is beyond it")
    end = min(start + settings.characters, whole)
    if end < whole:
        line = page.text.rfind("\n", start + settings.characters // 2, end)
        end = line + 1 if line > 0 else end
    more = f"; start={end} continues" if end < whole else ""
    lost = "; the page is too large and was cut" if page.cut else ""
    return page.text[start:end], f"(characters {start}-{end} of {whole}{more}{lost})"
