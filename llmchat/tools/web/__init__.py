"""The web as tools: search and fetch, guarded against addresses inside the user's network.

`addresses` decides what may be opened, `connection` opens it, `pages` makes text of it, and all of
this runs in a process of its own (`child`, `worker`) that can be stopped at any moment.
"""

from llmchat.tools import Tool, ToolSettings
from llmchat.tools.web.fetch import WebFetch
from llmchat.tools.web.search import WebSearch
from llmchat.tools.web.settings import WebSettings


def tools(settings: ToolSettings) -> list[Tool]:
    web = WebSettings.of(settings.world, settings.options)
    return [WebSearch(web, settings.sources), WebFetch(web, settings.sources)]
