"""What the user allows the tools of the web."""

from collections.abc import Mapping

from msgspec import Struct

from llmchat.errors import NetworkError
from llmchat.settings import Options, World
from llmchat.tools.web.connection import Access, proxies_of


class WebSettings(Struct, frozen=True):
    """Where to search, and what may be opened.

    searxng: address of a SearXNG server; empty for the search engines that ddgs knows. env: for
    proxies and certificates. characters: of a page in one answer of `web_fetch`. seconds: for each
    request; reading_seconds: more, to start and to make text of a page.
    """

    searxng: str = ""
    allow_private: bool = False
    offline: bool = False
    env: Mapping[str, str] = {}
    characters: int = 4000
    seconds: float = 15.0
    reading_seconds: float = 10.0

    @classmethod
    def of(cls, world: World, options: Options) -> "WebSettings":
        """The settings of a command."""
        offline = world.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        return cls(
            searxng=options.searxng_url or "",
            allow_private=options.allow_private,
            offline=offline or options.offline,
            env=world.env,
        )

    def access(self) -> Access:
        """What a request may do. Raises NetworkError in offline mode."""
        if self.offline:
            raise NetworkError(
                "offline mode is on, so the web is out of reach",
                "leave --offline and HF_HUB_OFFLINE out",
            )
        return Access(self.allow_private, seconds=self.seconds, proxies=proxies_of(self.env))
