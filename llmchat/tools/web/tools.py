"""The tools `web_search` and `web_fetch`."""

from threading import Event
from typing import Any

from llmchat.tools import Output, Source, ToolError
from llmchat.tools.sources import Sources
from llmchat.tools.web import child
from llmchat.tools.web.jobs import Job
from llmchat.tools.web.pages import Page
from llmchat.tools.web.search_engines import Result
from llmchat.tools.web.settings import WebSettings

_MOST_RESULTS = 10
_KEPT = 4


class WebSearch:
    """Search the web."""

    group = "web"
    name = "web_search"
    description = "Search the web. Returns titles, addresses and short extracts of pages."
    parameters = {
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1, "description": "What to search for."},
            "count": {
                "type": "integer",
                "minimum": 1,
                "maximum": _MOST_RESULTS,
                "description": "Number of results, 5 by default.",
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    }
    read_only = True

    def __init__(self, settings: WebSettings, sources: Sources):
        self._settings, self._sources = settings, sources

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        """Numbered results. Raises ToolError."""
        query = str(arguments["query"]).strip()
        if not query:
            raise ToolError("the query is empty")
        results = search(query, int(arguments.get("count", 5)), self._settings, stop)
        sources = tuple(Source(result.title, result.url) for result in results)
        numbers = [self._sources.number(source) for source in sources]
        text = "\n\n".join(map(_result, numbers, results)) or "no results"
        return Output(text, sources, untrusted=True)


class WebFetch:
    """Fetch a page as text."""

    group = "web"
    name = "web_fetch"
    description = (
        "Read a page of the web as text, given its http(s) address. A long page comes in parts:"
        " `start` continues it."
    )
    parameters = {
        "type": "object",
        "properties": {
            "url": {"type": "string", "minLength": 1, "description": "Address of the page."},
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
        url, start = str(arguments["url"]).strip(), arguments.get("start")
        page = self._pages.get(url) if start else None
        if page is None:
            page = fetch(url, self._settings, stop)
            self._keep(url, page)
        part, note = part_of(page, page.place if start is None else int(start), self._settings)
        source = Source(page.title or page.url, page.url)
        head = f"[{self._sources.number(source)}] {source.title}\n{page.url}"
        return Output(f"{head}\n{note}\n\n{part}", (source,), untrusted=True)

    def _keep(self, url: str, page: Page) -> None:
        self._pages[url] = page
        while len(self._pages) > _KEPT:
            self._pages.pop(next(iter(self._pages)))


def web_tools(settings: WebSettings, sources: Sources) -> tuple[WebSearch, WebFetch]:
    """The tools of the group `web`. sources: numbers what they find."""
    return WebSearch(settings, sources), WebFetch(settings, sources)


def search(query: str, count: int, settings: WebSettings, stop: Event) -> list[Result]:
    """Search with the user's SearXNG, else with ddgs. Raises ToolError, or NetworkError offline."""
    job = Job("search", query, settings.access(), settings.searxng, count)
    return child.run(job, settings, stop).results


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
        raise ToolError(f"the page ends at character {whole:,}; start {start:,} is behind it")
    end = min(start + settings.characters, whole)
    if end < whole:
        line = page.text.rfind("\n", start + settings.characters // 2, end)
        end = line + 1 if line > 0 else end
    more = f"; start={end} continues" if end < whole else ""
    lost = "; the page is too large and was cut" if page.cut else ""
    return page.text[start:end], f"(characters {start}-{end} of {whole}{more}{lost})"


def _result(number: int, result: Result) -> str:
    return "\n".join(filter(None, (f"[{number}] {result.title}", result.url, result.snippet)))
