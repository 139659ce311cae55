"""A hook for MkDocs: links that work in the repository work on the site too.

The same pages are read in both places. On the site, `CONTRIBUTING.md` and its like are pages of
docs/, and files outside docs/ do not exist: a link to one becomes plain text.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

# Files of the repository's root that have a page on the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def link(match: "re.Match[str]") -> str:
    """A Markdown link as the site needs it."""
    text, target, anchor = match["text"], match["target"], match["anchor"] or ""
    if "://" in target or target.startswith("mailto:"):
        return match[0]
    target = target.removeprefix("../").removeprefix("docs/")
    if target in PAGES:
        return f"[{text}]({PAGES[target]}{anchor})"
    is_page = PurePosixPath(target).suffix in (".md", ".svg") and "/" not in target
    return f"[{text}]({target}{anchor})" if is_page else text


def on_page_read_source(page: Any, **_: Any) -> str | None:
    """MkDocs calls this for each page; None means that it reads the file of docs/ itself."""
    root_file = {page: file for file, page in PAGES.items()}.get(page.file.src_uri, "README.md")
    return None if root_file == "README.md" else (ROOT / root_file).read_text("utf-8")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with the source of each page."""
    return _LINK.sub(link, markdown)
