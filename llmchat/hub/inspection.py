"""A source as it is now, before a pull."""

from typing import Any

from msgspec import Struct

from llmchat.gguf_file import GgufHeader
from llmchat.hub.gguf_repo import Variant
from llmchat.hub.headers import Shapes
from llmchat.hub.remote import Listing
from llmchat.hub.weights import Quantised
from llmchat.presets.types import Source


class Inspection(Struct, frozen=True):
    """A source as it is now. Sizes in bytes.

    size: of all its files; missing: what a pull fetches; partial: what an earlier attempt left;
    disk: the most that a pull takes while it unpacks; shapes: {} where only a download would show
    them; weights: size of the weight files; quantised: how they are stored; header: of a GGUF file;
    choices: the variants of a GGUF repo. Where the source names none of them, one must be chosen
    before a pull.
    """

    source: Source
    commit: str = ""
    here: bool = False
    size: int = 0
    missing: int = 0
    partial: int = 0
    disk: int = 0
    weights: int = 0
    files: int = 0
    form: str = "safetensors"
    config: dict[str, Any] = {}
    adapter: dict[str, Any] = {}
    shapes: Shapes = {}
    quantised: Quantised = Quantised()
    licence: str = ""
    gated: str = ""
    code: tuple[str, ...] = ()
    listing: Listing | None = None
    notes: tuple[str, ...] = ()
    header: GgufHeader | None = None
    choices: tuple[Variant, ...] = ()
