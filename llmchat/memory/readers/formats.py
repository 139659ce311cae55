"""Which reader reads which file, by its name."""

from collections.abc import Callable

from llmchat.errors import UsageError
from llmchat.memory.readers.code import code_sections, python_sections
from llmchat.memory.readers.headings import markdown_sections, rest_sections
from llmchat.memory.readers.types import Document, Section
from llmchat.process.streams import decoded

_Sections = Callable[[str], tuple[Section, ...]]
_SAMPLE = 8192
_CODE = """
c h cc cpp cxx hpp hh cs java kt kts scala go rs swift js mjs cjs jsx ts tsx php rb pl pm lua
sh bash zsh fish ps1 r jl ex exs erl hs ml fs clj dart zig nim sql proto cu cuh vue svelte
"""
# Read in a process of their own.
_APART = {"pdf": "pdf", "docx": "docx", "html": "html", "htm": "html", "xhtml": "html"}
_SECTIONS: dict[str, _Sections] = {
    **dict.fromkeys(("md", "markdown", "mdx", "qmd", "rmd"), markdown_sections),
    **dict.fromkeys(("rst", "rest"), rest_sections),
    **dict.fromkeys(("py", "pyi", "pyw"), python_sections),
    **dict.fromkeys(_CODE.split(), code_sections),
}


def read(data: bytes, name: str) -> Document:
    """The document in the bytes of a file. Raises UsageError for what has no text."""
    ending = ending_of(name)
    if kind := "pdf" if data.startswith(b"%PDF-") else _APART.get(ending):
        from llmchat.memory.readers.child import read_apart

        return read_apart(data, name, kind)
    text = text_of(data, name)
    find = _SECTIONS.get(ending)
    return Document(name, text, find(text) if find else ())


def ending_of(name: str) -> str:
    """What follows the last dot of a file's name, in lower case."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def text_of(data: bytes, name: str) -> str:
    """The text in bytes, with `\\n` line ends. Raises UsageError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if b"\0" in data[:_SAMPLE]:
        raise UsageError(f"{name} is a binary file", "documents are text, HTML, PDF and docx")
    return decoded(data, name)
