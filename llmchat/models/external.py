"""Models that another program runs: a server with OpenAI's API, or llama.cpp for `.gguf` files."""

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
from llmchat.models.gguf_lora import adapter_as_gguf
from llmchat.output.progress import Progress
from llmchat.presets import Preset, Source
from llmchat.presets import find as find_preset
from llmchat.settings import Options, World

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Elsewhere(Struct, frozen=True):
    """A model of a server.

    files: the model's tokenizer, if it was pulled to this machine as well. chat: the server's own
    template is used.
    """

    connection: Connection
    served: Served
    files: Path | None = None
    chat: bool = True

    def __str__(self) -> str:
        return f"{self.served.name} at {self.connection.host}"


def locate_served(preset: Preset, world: World) -> Elsewhere:
    """Find the model of a preset on its server; a preset without a name means the only model.

    Raises UsageError without an address, ModelNotFound if the server does not have the model,
    Mismatch if the server cannot take the preset's prompt format or its adapter scale.
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
    ) and not connection.host.startswith(_LOCAL_HOSTS):
        raise NetworkError(
            f"offline mode is on, and {connection.host} is another machine",
            "leave --offline and HF_HUB_OFFLINE out",
        )
    if preset.adapters and preset.adapter_scale != 1:
        raise Mismatch("a server applies an adapter at full strength", "leave the scale out")
    wanted = _names_on_server(preset, world)
    # A server may know a preset by another name; a name without a preset must be the server's own.
    bare = preset.base.kind == "served" or preset.name in (
        preset.base.repo,
        Path(preset.base.repo).name,
    )
    served = find_served(
        connection, wanted, only=not preset.name or (wanted[0] == preset.name and not bare)
    )
    if preset.format.parts and not served.dialect.texts:
        raise Mismatch(
            f"{served.dialect.title} applies its own template to every text, so it cannot use the"
            f" format `{preset.format.name}`",
            f"--model {served.name} without --format uses the server's template",
        )
    return Elsewhere(connection, served, _tokenizer_here(preset, world))


def _names_on_server(preset: Preset, world: World) -> tuple[str, ...]:
    """Names under which a server may have the model; the first one that it knows is used.

    The preset's name means the preset with its own adapters. With another adapter the model is
    named after it (`--lora-modules` of vLLM, `base+adapter` of `llmchat serve`).
    """
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
    """An engine that asks the server; notes what the server does not support."""
    from llmchat.engines.openai_api import OpenAIEngine

    served, host = elsewhere.served, elsewhere.connection.host
    _note_ignored(preset, options, ("weights", "kv", "device", "revision"), progress)
    if not served.certain:
        progress.note(f"note: {host} does not confirm that {served.name} is {preset.name}")
    if unknown := dropped(preset.sampling, served.dialect):
        progress.note(
            f"note: {served.dialect.title or host} does not support {' or '.join(unknown)};"
            " not sent"
        )
    return OpenAIEngine(
        elsewhere.connection,
        served,
        chat=elsewhere.chat,
        name=preset.name,
        tokens=Tokenizer(elsewhere.files) if elsewhere.files else None,
        context=preset.context.tokens,
    )


def check_gguf(preset: Preset) -> None:
    """Raise Mismatch for a preset that is not a `.gguf` file."""
    if not preset.base.is_gguf:
        raise Mismatch(
            f"the engine `gguf` runs .gguf files only, and {preset.name} is not one",
            f"--model ./file.gguf, or --model {preset.name} --base ./file.gguf for the preset's"
            " prompt format",
        )


def gguf_adapters(preset: Preset, base: Checkpoint, world: World) -> tuple[Checkpoint, ...]:
    """The adapters of a preset as `.gguf` files. base: its `.gguf` file."""
    return tuple(_adapter(source, base, preset, world) for source in preset.adapters)


def _adapter(source: Source, base: Checkpoint, preset: Preset, world: World) -> Checkpoint:
    """An adapter as a `.gguf` file: its own, or one converted from safetensors."""
    if source.is_gguf:
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
    """llmchat's engine for llama.cpp; notes the options that it does not support."""
    from llmchat.engines.gguf import GgufEngine

    _note_ignored(preset, options, ("weights", "revision"), progress)
    paths = [adapter.path for adapter in adapters]
    return GgufEngine(
        base.file or Path(base.source.repo),
        base.path,
        list(zip(paths, adapter_scales(preset, len(paths)), strict=True)),
        context=preset.context.tokens,
        device=options.device,
        kv=preset.kv,
        name=name,
    )


def adapter_scales(preset: Preset, count: int) -> list[float]:
    """The scale of each adapter: the preset's for the last one, 1 for those before it."""
    return [*([1.0] * (count - 1)), preset.adapter_scale] if count else []


def _note_ignored(
    preset: Preset, options: Options, names: Sequence[str], progress: Progress
) -> None:
    """Note the options that were given and have no effect on this engine."""
    given = [name for name in names if getattr(options, name) not in (None, "auto")]
    if given:
        progress.note(f"note: the engine `{preset.engine}` ignores --{' and --'.join(given)}")


def _tokenizer_here(preset: Preset, world: World) -> Path | None:
    """The folder of the model's tokenizer, if the preset was pulled as well."""
    if preset.base.kind == "served":
        return None
    try:
        return find(preset.base, world).path
    except (LlmchatError, OSError):
        return None
