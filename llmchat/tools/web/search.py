"""The tool `web_search`."""

from threading import Event
from typing import Any

from llmchat.tools import Output, Source, ToolError
from llmchat.tools.sources import Sources
from llmchat.tools.web import child
from llmchat.tools.web.jobs import Job
from llmchat.tools.web.search_engines import Result
from llmchat.tools.web.settings import WebSettings

_MOST_RESULTS = 10


class WebSearch:
    """Search the web."""

    group = "web"
    name = "web_search"
    origin = ""
    description = "Search the web. Returns titles, addresses and short extracts of pages."
    parameters = {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 400,
                "description": "What to search for.",
            },
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


def search(query: str, count: int, settings: WebSettings, stop: Event) -> list[Result]:
    """Search with the user's SearXNG, else with ddgs. Raises ToolError, or NetworkError offline."""
    job = Job("search", query, settings.access(), settings.searxng, count)
    return child.run(job, settings, stop).results


def _result(number: int, result: Result) -> str:
    return "\n".join(filter(None, (f"[{number}] {result.title}", result.url, result.snippet)))
