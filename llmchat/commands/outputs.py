"""What commands print with --json, where no room has a type for it.

Every field has a description; docs/json.md is generated from them.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from llmchat.window import Entry


class Usage(Struct):
    """The tokens of an answer."""

    prompt_tokens: Annotated[int, Meta(description="tokens of the prompt")]
    cached_tokens: Annotated[int, Meta(description="those of them that were in the KV cache")]
    completion_tokens: Annotated[int, Meta(description="tokens of the answer")]


class Timings(Struct):
    """The seconds of an answer."""

    load_s: Annotated[float, Meta(description="loading the model")]
    prefill_s: Annotated[float, Meta(description="reading the prompt, up to the first token")]
    decode_s: Annotated[float, Meta(description="the tokens after the first one")]


class SentWindow(Struct):
    """What was sent of a conversation, and what was left out."""

    limit: Annotated[int, Meta(description="tokens of the context window")]
    tokens: Annotated[int, Meta(description="tokens of the rendered prompt")]
    sent: Annotated[int, Meta(description="messages that were sent")]
    dropped: Annotated[int, Meta(description="messages that did not fit")]
    ledger: Annotated[tuple[Entry, ...], Meta(description="one entry for each message")]


class Answer(Struct):
    """An answer, and how it came about."""

    text: Annotated[str, Meta(description="the answer")]
    thinking: Annotated[
        str | UnsetType, Meta(description="what the model thought before; absent without it")
    ]
    model: Annotated[str, Meta(description="name of the model")]
    adapter: Annotated[str | None, Meta(description="its adapters, separated by commas")]
    served: Annotated[
        bool | UnsetType, Meta(description="true where the background server answered")
    ]
    finish_reason: Annotated[
        str, Meta(description="`stop`, `length` (the token limit) or `cancelled`")
    ]
    usage: Annotated[Usage, Meta(description="tokens")]
    timings: Annotated[Timings, Meta(description="seconds")]
    window: Annotated[SentWindow, Meta(description="what the model was given")]
    seed: Annotated[int, Meta(description="the seed that gives the same answer again")]
    session: Annotated[str | None, Meta(description="id of the session; null with --no-log")]
    code: Annotated[
        str | UnsetType | None,
        Meta(description="with --extract: the first code block, null where there is none"),
    ] = UNSET


class ListedPreset(Struct):
    """A preset, and whether it fits this machine."""

    name: Annotated[str, Meta(description="name of the preset")]
    title: Annotated[str, Meta(description="name of the model, for people")]
    size: Annotated[int, Meta(description="bytes to download, estimated")]
    fits: Annotated[
        str,
        Meta(description="kind of weights that fits the memory, `no`, `unknown` or `unsupported`"),
    ]
    format: Annotated[str, Meta(description="name of its prompt format")]
    licence: Annotated[str, Meta(description="licence of the model")]
    parameters: Annotated[float, Meta(description="number of parameters; 0 if unknown")]
    architecture: Annotated[str, Meta(description="class of transformers that runs it")]
    aliases: Annotated[tuple[str, ...], Meta(description="other names of the preset")]
    unsupported: Annotated[str, Meta(description="why llmchat cannot run it; empty if it can")]


class ListedFormat(Struct):
    """A prompt format."""

    name: Annotated[str, Meta(description="name of the format")]
    source: Annotated[str, Meta(description="where it was published")]


class ListedKey(Struct):
    """An API key of `llmchat serve`."""

    name: Annotated[str, Meta(description="name of its owner")]
    key: Annotated[str, Meta(description="its last characters")]
    created: Annotated[str, Meta(description="day on which it was made, YYYY-MM-DD")]


class LoadedModel(Struct):
    """A model in the memory of the background server."""

    name: Annotated[str, Meta(description="name of the model")]
    size: Annotated[int, Meta(description="estimated bytes in memory")]
    adapters: Annotated[list[str], Meta(description="adapters that are loaded on it")]
    running: Annotated[int, Meta(description="answers that are being written")]
    waiting: Annotated[int, Meta(description="requests in its queue")]
    expires_s: Annotated[
        int | None, Meta(description="seconds until it is unloaded; null for never")
    ]

    @property
    def until(self) -> str:
        """How long the model stays in memory, for people."""
        left = self.expires_s
        if left is None:
            return "for ever"
        return f"{left // 60} min" if left >= 60 else f"{left} s"


class OptionOrigin(Struct):
    """An option, and where its value comes from."""

    name: Annotated[str, Meta(description="name of the option")]
    value: Annotated[Any, Meta(description="its value; null for the preset's")]
    origin: Annotated[str, Meta(description="`default`, a variable, or the path of config.toml")]
