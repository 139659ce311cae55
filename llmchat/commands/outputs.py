"""Types of `--json` outputs that belong to no other package.

The text below a field is its description in docs/json.md.
"""

from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from llmchat.answer_report import CitedSource, SentWindow, Timings, ToolUse, Usage
from llmchat.memory.stored import Stored
from llmchat.memory.types import Hit
from llmchat.roles import Role


class OneAnswer(Struct):
    """One of several answers to a question."""

    text: str
    """The answer."""
    thinking: str
    """What the model thought before; empty without it."""
    finish_reason: str
    """`stop`, `length` (the token limit) or `cancelled`."""
    completion_tokens: int
    """Tokens of the answer."""
    seed: int
    """The seed that reproduces the answer."""


class Answer(Struct, kw_only=True):
    """An answer, and how it came about."""

    text: str
    """The answer."""
    thinking: str | UnsetType = UNSET
    """The model's reasoning before the answer; absent without it."""
    model: str
    """Name of the model."""
    adapter: str | None
    """Its adapters, separated by commas."""
    served: bool | UnsetType = UNSET
    """True where the background server answered."""
    finish_reason: str
    """`stop`, `length` (the token limit) or `cancelled`."""
    usage: Usage
    """Tokens."""
    timings: Timings
    """Seconds."""
    window: SentWindow
    """What the model was given."""
    seed: int
    """The seed that reproduces the answer."""
    session: str | None
    """Id of the session; null with --no-log."""
    code: str | UnsetType | None = UNSET
    """With --extract: the first code block, null where there is none."""
    value: Any = UNSET
    """The answer, parsed: with --schema, if it is complete."""
    tool_calls: list[ToolUse] | UnsetType = UNSET
    """Calls of tools, in order; absent without tools."""
    sources: list[CitedSource] | UnsetType = UNSET
    """Sources that --web, --docs and tools found; absent without any."""
    answers: list[OneAnswer] | UnsetType = UNSET
    """With --answers: all of them, the first one included."""
    earlier: list[OneAnswer] | UnsetType = UNSET
    """With a role of several turns: the answers before the last one."""


class ListedRole(Struct):
    """A role in the list of them."""

    name: str
    """Name of the role."""
    about: str
    """What it is for."""
    values: dict[str, str | None]
    """The values that it takes, with their defaults; null for a value without a default."""
    origin: str
    """`own` or `llmchat`."""

    @classmethod
    def of(cls, role: Role, own: Path) -> "ListedRole":
        values = {name: role.values.get(name) for name in role.names}
        is_own = (own / f"{role.name}.toml").is_file()
        return cls(role.name, role.about, values, "own" if is_own else "llmchat")


class ListedPreset(Struct):
    """A preset, and whether it fits this machine."""

    name: str
    """Name of the preset."""
    title: str
    """Name of the model, for people."""
    size: int
    """Bytes to download, estimated."""
    fits: str
    """Kind of weights that fits the memory, `no`, `unknown` or `unsupported`."""
    format: str
    """Name of its prompt format."""
    licence: str
    """Licence of the model."""
    parameters: float
    """Number of parameters; 0 if unknown."""
    architecture: str
    """Class of transformers that runs it."""
    aliases: tuple[str, ...]
    """Other names of the preset."""
    unsupported: str
    """Why llmchat cannot run it; empty if it can."""


class ListedFormat(Struct):
    """A prompt format."""

    name: str
    """Name of the format."""
    source: str
    """Where it was published."""


class ListedPlugin(Struct):
    """Something that a plugin adds."""

    offers: str
    """What it adds, `KIND.NAME`, such as `command.commit`."""
    package: str
    """Package that it comes from."""
    version: str
    """Version of the package."""
    state: str
    """`on`, `off` (LLMCHAT_NO_PLUGINS), `hidden` (the name is taken) or `broken`."""
    error: str
    """Why it is broken; empty if it is not, or without --check if that is unknown."""
    summary: str
    """Description of the package."""


class ListedKey(Struct):
    """An API key of `llmchat serve`."""

    name: str
    """Name of its owner."""
    key: str
    """Its last characters."""
    created: str
    """Day on which it was made, YYYY-MM-DD."""


class LoadedModel(Struct):
    """A model in the memory of the background server."""

    name: str
    """Name of the model."""
    size: int
    """Estimated bytes in memory."""
    adapters: list[str]
    """Adapters that are loaded on it."""
    running: int
    """Answers that are being written."""
    waiting: int
    """Requests in its queue."""
    expires_s: int | None
    """Seconds until it is unloaded; null for never."""

    @property
    def until(self) -> str:
        """How long the model stays in memory, for people."""
        left = self.expires_s
        if left is None:
            return "for ever"
        return f"{left // 60} min" if left >= 60 else f"{left} s"


class OptionOrigin(Struct):
    """An option, and where its value comes from."""

    name: str
    """Name of the option."""
    value: Any
    """Its value; null for the preset's."""
    origin: str
    """`default`, a variable, or the path of config.toml."""


class IndexHit(Struct):
    """A passage that a search of an index found."""

    source: str
    """Path or address of its document."""
    start: int
    """First character of the document's text that is in it."""
    end: int
    """The character after the last one."""
    score: float
    """How well it fits; higher is better, within one search."""
    text: str
    """Its text."""

    @classmethod
    def of(cls, hit: Hit) -> "IndexHit":
        passage = hit.passage
        return cls(passage.source, passage.start, passage.end, hit.score, passage.text)


class IndexRow(Struct):
    """An index in the list of them."""

    name: str
    """Name of the index."""
    documents: int
    """Number of documents."""
    passages: int
    """Number of passages."""
    embedder: str
    """Embedder of its vectors; empty for words alone."""
    size: int
    """Bytes of its file."""
    updated: float
    """Seconds since 1970."""


class IndexDocument(Struct):
    """A document of an index."""

    source: str
    """Path or address."""
    title: str
    """Its title; empty if it has none."""
    size: int
    """Bytes of the file, or of the text of a page."""
    passages: int
    """Number of passages."""

    @classmethod
    def of(cls, stored: Stored) -> "IndexDocument":
        return cls(stored.source, stored.title, stored.size, stored.passages)


class IndexPassage(Struct):
    """A passage of a document."""

    start: int
    """First character of the document's text that is in it."""
    end: int
    """The character after the last one."""
    heading: str
    """Headings above it, a function's name, or its page."""
    text: str
    """Its text."""


class IndexFacts(Struct):
    """An index and its documents."""

    name: str
    """Name of the index."""
    file: str
    """Path of its SQLite file."""
    embedder: str
    """Embedder of its vectors; empty for words alone."""
    width: int
    """Numbers of a vector."""
    added: list[str]
    """What was added, and is looked at by `index update`."""
    documents: list[IndexDocument]
    """Its documents; with SOURCE, that one."""
    passages: list[IndexPassage] | UnsetType = UNSET
    """With SOURCE: the passages of the document."""


class ListedClient(Struct):
    """A program that `llmchat connect` knows."""

    name: str
    """Its name on the command line."""
    title: str
    """What it is."""
    protocol: str
    """API that it uses: `chat`, `messages` or `responses`."""
    window: int
    """Tokens of the smallest context window that it works with."""
    tools: bool
    """Whether it requires tools."""
    source: str
    """Where its settings are documented."""
    tested: str
    """Version and day of a test; empty if only its documentation was read."""


class ClientFile(Struct):
    """The settings for one file of a client."""

    path: str
    """The file; empty for text that is not written to a file."""
    kind: str
    """`json`, `yaml`, `toml`, `python` or `shell`."""
    text: str
    """The contents of a new file with the settings."""


class ClientSettings(Struct):
    """What `llmchat connect CLIENT` found and prints."""

    client: str
    """Name of the client."""
    model: str
    """Name of the model on the server."""
    url: str
    """Address of the API."""
    window: int
    """Tokens of the model's context window; 0 if unknown."""
    running: bool
    """Whether the server answered."""
    files: list[ClientFile]
    """The files of the client."""
    run: str
    """Command that uses the settings; empty if there is none."""
    notes: list[str]
    """Notes for the user."""
