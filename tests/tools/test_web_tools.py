"""`web_search` and `web_fetch` against a site on loopback, in the process that they start."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from msgspec.structs import replace
from support.loopback_web import Handler, Reply, Site, html, serving
from support.worlds import make_world

from llmchat.errors import LlmchatError, NetworkError
from llmchat.settings import Options
from llmchat.tools import Output, Source, ToolError, ToolSettings
from llmchat.tools.registry import tools_of
from llmchat.tools.running import run
from llmchat.tools.sources import Sources
from llmchat.tools.validation import fault
from llmchat.tools.web.connection import Access
from llmchat.tools.web.fetch import WebFetch, part_of
from llmchat.tools.web.pages import Page
from llmchat.tools.web.search import WebSearch
from llmchat.tools.web.search_engines import ask_ddgs, ask_searxng
from llmchat.tools.web.settings import WebSettings

PARAGRAPH = "A paragraph that is long enough to be the main text of a page of the web."
HITS = [
    {"url": "http://a.example/1", "title": "First\x1b[1m", "content": "about the first"},
    {"url": "http://a.example/2", "title": "", "content": "x" * 900},
    {"url": "http://a.example/1", "title": "again", "content": ""},
    {"url": "javascript:alert(1)", "title": "bad", "content": ""},
    "not an object",
    {"url": "http://a.example/3", "title": "Third", "content": None},
]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(results=HITS)) as site:  # type: ignore[arg-type]
        yield site


@pytest.fixture
def settings(site: Site) -> WebSettings:
    return WebSettings(site.url, allow_private=True, env={"PATH": os.environ["PATH"]}, seconds=5)


def never() -> threading.Event:
    return threading.Event()


def search(settings: WebSettings, sources: Sources | None = None, **arguments: Any) -> Output:
    return WebSearch(settings, sources or Sources()).run(arguments, never())


def fetch(settings: WebSettings, sources: Sources | None = None, **arguments: Any) -> Output:
    return WebFetch(settings, sources or Sources()).run(arguments, never())


def test_results_are_numbered_with_their_addresses(settings: WebSettings, site: Site) -> None:
    found = search(settings, query="what & why", count=2)
    assert found.text == (
        f"[1] First\nhttp://a.example/1\nabout the first\n\n"
        f"[2] http://a.example/2\nhttp://a.example/2\n{'x' * 499}…"
    )
    assert found.sources == (
        Source("First", "http://a.example/1"),
        Source("http://a.example/2", "http://a.example/2"),
    )
    assert found.untrusted and site.asked == ["/search?q=what+%26+why&format=json"]


def test_a_page_is_numbered_and_marked(settings: WebSettings, site: Site) -> None:
    site.pages["/p"] = html(f"<p>{PARAGRAPH}</p>", "Its title")
    found = fetch(settings, url=f"{site.url}/p#part")
    assert found.text == (
        f"[1] Its title\n{site.url}/p\n(characters 0-{len(PARAGRAPH)} of {len(PARAGRAPH)})"
        f"\n\n{PARAGRAPH}"
    )
    assert found.untrusted and found.sources == (Source("Its title", f"{site.url}/p"),)


def test_numbers_continue_and_the_same_page_keeps_its_number(
    settings: WebSettings, site: Site
) -> None:
    sources = Sources()
    search(settings, sources, query="x")
    site.pages["/p"] = Reply(b"text", "text/plain")
    assert fetch(settings, sources, url=f"{site.url}/p").text.startswith("[4] ")
    assert fetch(settings, sources, url=f"{site.url}/p#there").text.startswith("[4] ")
    assert [source.n for source in sources.take()] == [1, 2, 3, 4]
    assert sources.take() == ()
    assert sources.number(Source("First", "http://a.example/1#x")) == 1
    assert [source.n for source in sources.take()] == [1]


def test_a_long_page_comes_in_parts_from_one_request(settings: WebSettings, site: Site) -> None:
    lines = "\n\n".join(f"{number} {PARAGRAPH}" for number in range(50))
    site.pages["/p"] = Reply(lines.encode(), "text/plain")
    tool = WebFetch(replace(settings, characters=1000), Sources())
    text, start = "", 0
    while True:
        part = tool.run({"url": f"{site.url}/p", **({"start": start} if start else {})}, never())
        head, _, body = part.text.partition("\n\n")
        assert len(body) <= 1000
        text += body
        if "continues" not in head:
            break
        start = int(head.rpartition("start=")[2].split()[0])
    assert [line.split()[0] for line in text.split("\n\n")] == [str(n) for n in range(50)]
    assert site.asked == ["/p"]
    with pytest.raises(ToolError, match="the page ends at character"):
        tool.run({"url": f"{site.url}/p", "start": 10**6}, never())


def test_a_part_ends_with_a_line_if_it_can() -> None:
    settings = WebSettings(characters=10)
    assert part_of(Page("", "", "aaaaaaa\nbbbbbbb"), 0, settings)[0] == "aaaaaaa\n"
    assert part_of(Page("", "", "a\nbbbbbbbbbbbbbb"), 0, settings)[0] == "a\nbbbbbbbb"
    assert "was cut" in part_of(Page("", "", "a", cut=True), 0, settings)[1]


def test_a_fragment_begins_the_part(settings: WebSettings, site: Site) -> None:
    site.pages["/p"] = html(f"<h2>One</h2><p>{PARAGRAPH}</p><h2 id=two>Two</h2><p>{PARAGRAPH}</p>")
    found = fetch(settings, url=f"{site.url}/p#two", start=0).text
    assert "\n\n## Two\n\n" in found and "One" not in found


def test_private_addresses_are_refused_unless_allowed(settings: WebSettings, site: Site) -> None:
    with pytest.raises(ToolError, match="not an address of the public internet") as refused:
        fetch(replace(settings, allow_private=False), url=site.url)
    assert "--allow-private" in refused.value.hint and site.asked == []


@pytest.mark.parametrize("tool", [WebSearch, WebFetch])
def test_offline_mode_refuses_before_anything_starts(
    settings: WebSettings, site: Site, tool: type[WebSearch | WebFetch]
) -> None:
    with pytest.raises(NetworkError, match="offline mode is on"):
        tool(replace(settings, offline=True), Sources()).run({"query": "x", "url": "x"}, never())
    assert site.asked == []


def test_settings_come_from_options_and_the_environment(tmp_path: Path) -> None:
    world = make_world(tmp_path, HF_HUB_OFFLINE="1", https_proxy="http://proxy:1")
    found = WebSettings.of(world, Options(searxng_url="http://s", allow_private=True))
    assert (found.searxng, found.allow_private, found.offline) == ("http://s", True, True)
    assert not WebSettings.of(make_world(tmp_path), Options()).offline
    access = replace(found, offline=False).access()
    assert access.allow_private and access.proxies == {"https": "http://proxy:1"}


def test_both_are_in_the_registry_with_valid_schemas(tmp_path: Path) -> None:
    found = tools_of(["web"], ToolSettings(make_world(tmp_path)))
    assert [tool.name for tool in found] == ["web_search", "web_fetch"]
    assert all(tool.read_only and tool.group == "web" and not tool.origin for tool in found)
    assert fault(found[0], {"query": "x", "count": 10}) == ""
    assert fault(found[0], {"query": "x", "count": 11}) and fault(found[1], {"url": ""})


class TestSearxng:
    """Faults of the user's SearXNG server."""

    def refusal(self, site: Site, reply: Reply) -> LlmchatError:
        site.pages["/search"] = reply
        with pytest.raises(ToolError) as refused:
            ask_searxng(site.url, "x", 5, Access())
        assert "\n" not in refused.value.message
        return refused.value

    def test_without_json_names_the_setting(self, site: Site) -> None:
        error = self.refusal(site, Reply(b"<h1>Forbidden</h1>", status=403))
        assert "HTTP 403" in error.message and "search.formats" in error.hint

    def test_a_limit_is_reported_with_its_time(self, site: Site) -> None:
        error = self.refusal(site, Reply(status=429, headers={"Retry-After": "9"}))
        assert "too many requests; it asks to wait 9 seconds" in error.message

    @pytest.mark.parametrize(
        ("reply", "line"),
        [
            (html("hello"), "answers with a web page"),
            (Reply(b"{}", "application/json"), "answers with no results in JSON"),
            (Reply(b'{"results": 1}', "application/json"), "answers with no results in JSON"),
            (Reply(b"[]", "application/json"), "answers with no results in JSON"),
            (Reply(b"[" * 100_000, "application/json"), "answers with no results in JSON"),
            (Reply(status=302, headers={"Location": "http://x/"}), "redirects to http://x/"),
            (Reply(status=500), "the server fails"),
        ],
    )
    def test_another_server_is_one_line(self, site: Site, reply: Reply, line: str) -> None:
        assert line in self.refusal(site, reply).message

    def test_engines_that_do_not_answer_are_named(self, site: Site) -> None:
        body = b'{"results": [], "unresponsive_engines": [["bing", "timeout"], ["brave", "x"]]}'
        error = self.refusal(site, Reply(body, "application/json"))
        assert "do not answer" in error.message and error.hint == "bing: timeout, brave: x"

    def test_no_results_are_a_text(self, settings: WebSettings, site: Site) -> None:
        site.results = []
        assert search(settings, query="x").text == "no results"

    def test_a_path_in_its_address_is_kept(self, site: Site) -> None:
        site.pages["/searx/search"] = Reply(b'{"results": []}', "application/json")
        for end in ("/searx", "/searx/", "/searx/search"):
            assert ask_searxng(site.url + end, "x", 5, Access()) == []

    def test_a_long_query_of_any_script_is_sent_whole(self, site: Site) -> None:
        assert ask_searxng(site.url, "橋" * 400, 5, Access())
        assert unquote(site.asked[0]).count("橋") == 400

    def test_its_address_needs_no_scheme(self, site: Site) -> None:
        assert len(ask_searxng(f"localhost:{site.port}", "x", 5, Access())) == 3

    @pytest.mark.parametrize("base", ["http://", "ftp://x", "http://u:p@x", "no server"])
    def test_an_invalid_address_is_one_line(self, base: str) -> None:
        with pytest.raises(ToolError) as refused:
            ask_searxng(base, "x", 5, Access())
        assert "\n" not in refused.value.message

    def test_it_may_be_private_while_pages_may_not(self, settings: WebSettings) -> None:
        assert search(replace(settings, allow_private=False), query="x").sources


DDGS = """
import os
class exceptions: pass
class DDGS:
    def __init__(self, proxy=None, timeout=5): assert timeout == 5
    def text(self, query, max_results):
        from ddgs.exceptions import DDGSException
        if query.startswith("fail "):
            raise DDGSException(query[5:])
        return [{"title": f"about {query}", "href": "http://a.example/", "body": "text"}]
"""


class TestDdgs:
    """The package ddgs, by a stand-in with its names and its errors."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> WebSettings:
        (tmp_path / "ddgs").mkdir()
        (tmp_path / "ddgs/__init__.py").write_text(DDGS)
        (tmp_path / "ddgs/exceptions.py").write_text("class DDGSException(Exception): pass")
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
        return WebSettings(env=env, seconds=5)

    def test_its_results_are_listed(self, settings: WebSettings) -> None:
        assert search(settings, query="x").text == "[1] about x\nhttp://a.example/\ntext"

    @pytest.mark.parametrize(
        ("fault", "line"),
        [
            ("Ratelimit 202", "the search engines refuse more requests for now"),
            ("operation timed out", "the search engines are too slow"),
            ("ConnectError: dns error", "the search engines cannot be reached: no network"),
            ("something\nelse", "the search fails: something"),
        ],
    )
    def test_its_faults_are_one_line(self, settings: WebSettings, fault: str, line: str) -> None:
        with pytest.raises(ToolError) as refused:
            search(settings, query=f"fail {fault}")
        assert line in refused.value.message and "\n" not in refused.value.message

    def test_no_results_are_a_text(self, settings: WebSettings) -> None:
        assert search(settings, query="fail No results found.").text == "no results"

    def test_the_real_package_without_a_network_is_one_line(self) -> None:
        pytest.importorskip("ddgs")
        env = {"PATH": os.environ["PATH"], "https_proxy": "http://127.0.0.1:1"}
        with pytest.raises(ToolError, match="the search engines cannot be reached: no network"):
            search(WebSettings(env=env, seconds=5), query="x")

    def test_the_real_package_has_these_names(self) -> None:
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

        assert callable(DDGS(proxy=None, timeout=5).text)
        assert issubclass(RatelimitException, DDGSException)
        assert issubclass(TimeoutException, DDGSException)

    def test_without_it_one_line_says_how_to_search(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "ddgs", None)
        with pytest.raises(ToolError, match="requires the package ddgs or a SearXNG") as refused:
            ask_ddgs("x", 5, Access())
        assert "llmchat[tools]" in refused.value.hint


class TestProcess:
    """The process that does the work ends with the call."""

    def children(self) -> set[str]:
        found = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True
        )
        return {line for line in found.stdout.splitlines() if "web.worker" in line}

    def test_stop_ends_it_before_its_time_limit(self, settings: WebSettings, site: Site) -> None:
        stop, reached = threading.Event(), threading.Event()

        def hang(handler: Handler) -> None:
            reached.set()
            site.released.wait(60)

        site.pages["/"] = hang
        tool = WebFetch(replace(settings, seconds=60), Sources())
        failed: list[Exception] = []

        def call() -> None:
            try:
                tool.run({"url": site.url}, stop)
            except ToolError as error:
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        assert reached.wait(20) and self.children()
        stop.set()
        thread.join(20)
        assert not thread.is_alive() and "was stopped" in str(failed[0])
        assert not self.children()

    def test_a_deadline_of_the_toolbox_ends_it(self, settings: WebSettings, site: Site) -> None:
        site.pages["/"] = lambda handler: site.released.wait(10) and None
        tool = WebFetch(replace(settings, seconds=60), Sources())
        finished = run(tool, {"url": site.url}, timeout_s=0.3)
        assert (
            "web_fetch was stopped after 0.3 s" in finished.error or "was stopped" in finished.error
        )
        assert not self.children()

    def test_a_page_that_keeps_the_parser_busy_is_given_up(
        self, settings: WebSettings, site: Site
    ) -> None:
        site.pages["/"] = html("<b><p>" * 300_000)
        hasty = replace(settings, seconds=1, reading_seconds=1)
        with pytest.raises(ToolError, match="loading and reading took more than 2 s"):
            fetch(hasty, url=site.url)
        assert not self.children()

    def test_a_parser_that_fails_is_one_line(
        self, settings: WebSettings, site: Site, tmp_path: Path
    ) -> None:
        (tmp_path / "trafilatura.py").write_text("def load_html(page): raise KeyError('x')")
        site.pages["/"] = html("<p>x</p>")
        broken = replace(settings, env={**settings.env, "PYTHONPATH": str(tmp_path)})
        with pytest.raises(ToolError, match=r"the page cannot be read \(KeyError\)"):
            fetch(broken, url=site.url)

    def test_one_that_dies_is_one_line(self, settings: WebSettings, tmp_path: Path) -> None:
        (tmp_path / "httpx2.py").write_text("import os; os._exit(3)")
        broken = replace(settings, env={**settings.env, "PYTHONPATH": str(tmp_path)})
        with pytest.raises(ToolError, match="took too much time or memory"):
            fetch(broken, url="http://a.example/")
