"""The jobs that `child` gives to the process of `worker`, and what comes of them."""

from typing import Literal

from msgspec import Struct

from llmchat.tools.web.connection import Access, load
from llmchat.tools.web.pages import Page, read
from llmchat.tools.web.search_engines import Result, ask_ddgs, ask_searxng


class Job(Struct, frozen=True):
    """What to do. text: an address to fetch, or a query. server: of SearXNG, empty for ddgs."""

    kind: Literal["fetch", "search"]
    text: str
    access: Access
    server: str = ""
    count: int = 5


class Done(Struct, frozen=True):
    """What came of a job: a page, results, or an error with its hint."""

    page: Page | None = None
    results: list[Result] = []
    error: str = ""
    hint: str = ""


def work(job: Job) -> Done:
    """Do a job in this process. Raises ToolError."""
    if job.kind == "fetch":
        return Done(read(load(job.text, job.access)))
    if job.server:
        return Done(results=ask_searxng(job.server, job.text, job.count, job.access))
    return Done(results=ask_ddgs(job.text, job.count, job.access))
