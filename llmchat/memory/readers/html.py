"""The text of an HTML file as Markdown. Runs in the process of `worker`."""

from llmchat.errors import UsageError
from llmchat.memory.readers.headings import markdown_sections
from llmchat.memory.readers.types import Document


def read_html(data: bytes, name: str) -> Document:
    """The main text of a page; without a main part, all of its text. Raises UsageError."""
    try:
        import trafilatura
    except ImportError as error:
        raise UsageError(
            f"{name}: reading HTML requires the package trafilatura",
            "pip install 'llmchat[tools]'",
        ) from error
    tree = trafilatura.load_html(data)
    if tree is None:
        raise UsageError(f"{name} has no text")
    titles = [" ".join(one.text_content().split()) for one in tree.xpath("//title | //h1")]
    text = trafilatura.extract(
        tree, output_format="markdown", include_tables=True, include_comments=False,
        favor_recall=True,
    ) or trafilatura.html2txt(tree)  # fmt: skip
    if not text or not text.strip():
        raise UsageError(f"{name} has no text")
    title = next(filter(None, titles), "")
    return Document(name, text, markdown_sections(text), title)
