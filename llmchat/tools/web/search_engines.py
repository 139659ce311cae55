"""Ask a search engine: the user's SearXNG, or those that `ddgs` knows. Runs in `worker`."""

import json
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError
from llmchat.tools.web.connection import Access, Loaded, load_configured
from llmchat.tools.web.pages import one_line

_LONGEST_SNIPPET = 500


class Result(Struct, frozen=True):
    """One hit of a search."""

    title: str
    url: str
    snippet: str


def ask_searxng(base: str, query: str, count: int, access: Access) -> list[Result]:
    """The first results of a SearXNG server. Raises ToolError."""
    base = base if "://" in base else f"http://{base}"
    address = f"{base.rstrip('/').removesuffix('/search')}/search"
    try:
        answer = load_configured(f"{address}?{urlencode({'q': query, 'format': 'json'})}", access)
    except ToolError as error:
        if "HTTP 403" in error.message:
            error.hint = "its settings.yml must list `json` under search.formats"
        raise
    return _results(_searxng_answer(answer, base), "content")[:count]


def _searxng_answer(answer: Loaded, base: str) -> list[Any]:
    try:
        content = json.loads(answer.body)
        found, silent = list(content["results"]), content.get("unresponsive_engines")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        kind = "a web page" if answer.kind == "text/html" else "no results in JSON"
        raise ToolError(
            f"{excerpt(base)} answers with {kind}", "searxng_url must name a SearXNG server"
        ) from error
    if silent and not found:
        # Pairs of an engine and the reason, such as ["bing", "timeout"].
        reasons = ", ".join(": ".join(map(str, one)) for one in silent if isinstance(one, list))
        raise ToolError(f"the search engines of {excerpt(base)} do not answer", one_line(reasons))
    return found


def ask_ddgs(query: str, count: int, access: Access) -> list[Result]:
    """The first results of the public search engines. Raises ToolError."""
    try:
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException
    except ImportError as error:
        raise ToolError(
            "searching the web requires the package ddgs or a SearXNG server",
            "`pip install 'llmchat[tools]'`, or set searxng_url",
        ) from error
    proxy = access.proxies.get("https") or access.proxies.get("all")
    try:
        found = DDGS(proxy=proxy, timeout=int(access.seconds)).text(query, max_results=count)
    except DDGSException as error:
        return _explain(error)
    return _results(found, "body")[:count]


def _explain(error: Exception) -> list[Result]:
    """No results, or a ToolError for the fault that ddgs reports as text."""
    text = f"{type(error).__name__} {error}".lower()
    if "no results" in text:
        return []
    if "ratelimit" in text or "429" in text or " 202" in text:
        raise ToolError("the search engines refuse more requests for now", _LATER) from error
    if "timed out" in text or "timeout" in text:
        raise ToolError("the search engines are too slow", _LATER) from error
    if "connect" in text or "dns" in text or "resolve" in text:
        raise ToolError("the search engines cannot be reached: no network") from error
    raise ToolError(f"the search fails: {excerpt(str(error))}", _LATER) from error


_LATER = "try again later, or set searxng_url"


def _results(found: list[Any], snippet: str) -> list[Result]:
    """Well-formed results, each address once."""
    results: dict[str, Result] = {}
    for one in found:
        if not isinstance(one, dict):
            continue
        url = str(one.get("url") or one.get("href") or "").strip()
        if url.startswith(("http://", "https://")) and " " not in url and len(url) <= 2000:
            title = one_line(str(one.get("title") or "")) or url
            text = one_line(str(one.get(snippet) or ""), _LONGEST_SNIPPET)
            results.setdefault(url, Result(title, url, text))
    return list(results.values())
