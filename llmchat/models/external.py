"""Models that another program runs: those of a server that speaks OpenAI's API, and `.gguf` files in llama.cpp. Found here, and opened."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llmchat.engines import Engine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import dropped
from llmchat.engines.openai_api.server_models import Served, find_served
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, Mismatch, ModelNotFound, NetworkError, UsageError
from llmchat.hub import Checkpoint, find
from llmchat.hub.local import find_gguf
from llmchat.models.gguf_lora import adapter_as_gguf
from llmchat.presets import Preset, Source
from llmchat.presets import find as find_preset
from llmchat.progress import Progress
from llmchat.settings import Options, World

_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Elsewhere(Struct, frozen=True):
    """A model of a server. files: the model's tokenizer, where it was pulled to this machine too; chat: the server's own template is used."""

    connection: Connection
    served: Served
    files: Path | None = None
    chat: bool = True

    def __str__(self) -> str:
        return f"{self.served.name} at {self.connection.host}"


def locate_served(preset: Preset, world: World) -> Elsewhere:
    """Ask the server for the model of a preset: see `_names_there`; the only one where the preset has no name.

    Raises UsageError without an address, ModelNotFound where the server has no such model, Mismatch where it cannot be sent the preset's format,
    or would have to put an adapter on more or less strongly.
    """
    url = preset.url or world.env.get("OPENAI_BASE_URL", "")
    if not url:
        raise UsageError(
            "the engine `openai` needs a server",
            "--url http://localhost:8000/v1, LLMCHAT_URL or OPENAI_BASE_URL names it",
        )
    connection = Connection(url, world.env.get("OPENAI_API_KEY", ""))
    if world.env.get("HF_HUB_OFFLINE", "").upper() in (
        "1",
        "ON",
        "YES",
        "TRUE",
    ) and not connection.host.startswith(_HERE):
        raise NetworkError(
            f"offline mode is on, and {connection.host} is another machine",
            "leave --offline and HF_HUB_OFFLINE out",
        )
    if preset.adapters and preset.adapter_scale != 1:
        raise Mismatch("a server puts an adapter on as it was trained", "leave the scale out")
    wanted = _names_there(preset, world)
    # A preset can be what a server calls by a name of its own; a name that is no preset's can only be the server's.
    bare = preset.base.kind == "served" or preset.name in (
        preset.base.repo,
        Path(preset.base.repo).name,
    )
    served = find_served(
        connection, wanted, only=not preset.name or (wanted[0] == preset.name and not bare)
    )
    if preset.format.parts and not served.dialect.texts:
        raise Mismatch(
            f"{served.dialect.title} writes its own template around every text, so the format `{preset.format.name}` cannot be sent to it",
            f"--model {served.name} without --format uses the template of the server",
        )
    return Elsewhere(connection, served, _tokenizer_here(preset, world))


def _names_there(preset: Preset, world: World) -> tuple[str, ...]:
    """What a server may call the model, the first one that it has counts. The preset's own name stands for it with its own adapters alone; with
    another adapter it is the adapter's (`--lora-modules` of vLLM, `base+adapter` of `llmchat serve`), without it the base's."""
    try:
        own = find_preset(preset.name, world.own_presets).adapters
    except ModelNotFound:
        own = ()
    names = (preset.name, *preset.aliases)
    if preset.adapters != own:
        last = [Path(source.repo).name for source in preset.adapters[-1:]]
        names = tuple(f"{name}+{adapter}" for name in names for adapter in last) + tuple(last)
    return (*names, *(source.repo for source in preset.adapters[-1:] or (preset.base,)))


def open_served(
    preset: Preset, elsewhere: Elsewhere, options: Options, progress: Progress
) -> Engine:
    from llmchat.engines.openai_api import OpenAIEngine

    served, host = elsewhere.served, elsewhere.connection.host
    _tell_of_nothing(preset, options, ("weights", "device", "revision"), progress)
    if not served.certain:
        progress.note(f"note: {host} does not say that {served.name} is {preset.name}")
    if unknown := dropped(preset.sampling, served.dialect):
        progress.note(
            f"note: {served.dialect.title or host} has no {' and no '.join(unknown)}; they are not sent"
        )
    return OpenAIEngine(
        elsewhere.connection,
        served,
        chat=elsewhere.chat,
        name=preset.name,
        tokens=Tokenizer(elsewhere.files) if elsewhere.files else None,
        context=preset.context.tokens,
    )


def locate_gguf(preset: Preset, world: World) -> tuple[Checkpoint, tuple[Checkpoint, ...]]:
    """A `.gguf` file and its adapters."""
    if not _is_gguf(preset.base):
        raise Mismatch(
            f"the engine `gguf` runs .gguf files, and {preset.name} is none",
            f"--model ./file.gguf, or --model {preset.name} --base ./file.gguf for the preset's format",
        )
    base = find_gguf(preset.base, world)
    return base, tuple(_adapter(source, base, preset, world) for source in preset.adapters)


def _adapter(source: Source, base: Checkpoint, preset: Preset, world: World) -> Checkpoint:
    """An adapter as a `.gguf` file, its path in place of a folder's: as it is, or written from safetensors."""
    if _is_gguf(source):
        path = Path(source.repo)
        if not path.is_file():
            raise ModelNotFound(f"there is no file {path}")
        return Checkpoint(path, source, "", path.stat().st_size)
    try:
        found = find(source, world)
    except ModelNotFound as error:
        if source.kind == "path":
            raise
        raise ModelNotFound(
            f"the adapter {source} is not pulled",
            f"`llmchat pull {preset.name} --adapter {source.repo}` downloads it",
        ) from error
    return replace(found, path=adapter_as_gguf(found, base.path, world))


def open_gguf(
    preset: Preset,
    base: Checkpoint,
    adapters: Sequence[Checkpoint],
    options: Options,
    name: str,
    progress: Progress,
) -> Engine:
    from llmchat.engines.gguf import GgufEngine

    _tell_of_nothing(preset, options, ("weights", "revision"), progress)
    strengths = [1.0] * len(adapters)
    strengths[-1:] = [preset.adapter_scale] * len(strengths[-1:])
    return GgufEngine(
        Path(base.source.repo),
        base.path,
        list(zip((adapter.path for adapter in adapters), strengths, strict=True)),
        context=preset.context.tokens,
        device=options.device,
        name=name,
    )


def _tell_of_nothing(
    preset: Preset, options: Options, names: Sequence[str], progress: Progress
) -> None:
    """A note about what was asked for and decides nothing here."""
    given = [name for name in names if getattr(options, name) not in (None, "auto")]
    if given:
        progress.note(f"note: the engine `{preset.engine}` takes {' and '.join(given)} as they are")


def _is_gguf(source: Source) -> bool:
    return source.kind == "path" and source.repo.endswith(".gguf")


def _tokenizer_here(preset: Preset, world: World) -> Path | None:
    """Of a preset that was pulled as well."""
    if preset.base.kind == "served":
        return None
    try:
        return find(preset.base, world).path
    except (LlmchatError, OSError):
        return None
