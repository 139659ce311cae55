"""The commands for serving beyond one machine: deploy."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.settings import World, resolve

app = typer.Typer(help="Serve a preset with an engine for many users.", no_args_is_help=True)

HARDWARE, FILES = "Hardware", "Files"


@app.callback()
def deploy() -> None:
    """Serve a preset with an engine for many users."""


_Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="A preset; several with adapters on the same base share a server.",
        autocompletion=options.complete_model,
    ),
]
_Merged = Annotated[
    bool | None,
    typer.Option(
        "--merged/--lora",
        help="Merge adapters, or keep them live; by default live where vLLM can.",
        show_default=False,
    ),
]
_Gpus = Annotated[
    int,
    typer.Option(min=0, help="GPUs of a host; 0 to serve on its CPU.", rich_help_panel=HARDWARE),
]
_Hosts = Annotated[
    int,
    typer.Option(min=1, help="Hosts; above 1 a pipeline over Ray.", rich_help_panel=HARDWARE),
]
_GpuMemory = Annotated[
    float,
    typer.Option(
        min=0, help="GB of one GPU; with it the fit is checked.", rich_help_panel=HARDWARE
    ),
]
_Dtype = Annotated[
    str, typer.Option(help="auto, bfloat16, float16 or float32.", rich_help_panel=HARDWARE)
]
_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_Port = Annotated[int, typer.Option(min=1, max=65535)]
_VllmFlags = Annotated[
    str, typer.Option(metavar="FLAGS", help="More flags for vLLM, in one quoted string.")
]
_Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder of the files; NAME-vllm.",
        rich_help_panel=FILES,
    ),
]
_Compose = Annotated[
    str,
    typer.Option(metavar="FILE", help="Write a Docker Compose file.", rich_help_panel=FILES),
]
_Ray = Annotated[
    str, typer.Option(metavar="FILE", help="Write a Ray Serve config.", rich_help_panel=FILES)
]
_Replicas = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Of Ray Serve, at most: 4, or 1 without GPUs.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
_Streams = Annotated[
    int,
    typer.Option(
        min=1, help="Requests a replica of Ray Serve is meant to have.", rich_help_panel=FILES
    ),
]
_Store = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="Where Ray finds adapters: s3://, gs://, azure://.",
        rich_help_panel=FILES,
    ),
]
_Run = Annotated[bool, typer.Option("--run", help="Start the server, not only print the command.")]
_Program = Annotated[str, typer.Option("--vllm", metavar="PATH", help="vLLM's program.")]


@app.command()
def vllm(
    ctx: typer.Context,
    models: _Models,
    adapter: options.Adapter = None,
    format: options.Format = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = None,
    system: options.System = None,
    context: options.Context = None,
    merged: _Merged = None,
    gpus: _Gpus = 1,
    hosts: _Hosts = 1,
    gpu_memory: _GpuMemory = 0,
    dtype: _Dtype = "auto",
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    vllm_flags: _VllmFlags = "",
    out: _Out = "",
    compose: _Compose = "",
    ray: _Ray = "",
    replicas: _Replicas = None,
    streams: _Streams = 32,
    store: _Store = "",
    run: _Run = False,
    program: _Program = "vllm",
    quiet: options.Quiet = False,
) -> None:
    """Print the `vllm serve` command for a preset, with its format as chat template, or run it."""
    from llmchat.deploy import Hardware, plan
    from llmchat.deploy.sizing import BYTES
    from llmchat.models.opener import preset_of

    if dtype not in BYTES:
        raise UsageError(f"invalid dtype `{dtype}`", f"use {', '.join(BYTES)}")
    world: World = ctx.obj
    changes = {name: ctx.params[name] for name in _PRESET_FLAGS}
    presets = [preset_of(world, model=name, **changes) for name in models]
    folder = Path(out or f"{Path(presets[0].name).name}-vllm").expanduser().resolve()
    ready = plan(
        presets,
        world,
        Hardware(hosts, gpus, gpu_memory * 1e9),
        folder,
        merged=merged,
        dtype=dtype,
        host=host,
        port=port,
        flags=_words(vllm_flags),
        code=resolve(world, {"trust_remote_code": trust_remote_code}).options.trust_remote_code,
        asked=[models[0], *(["--adapter", adapter] if adapter else [])],
    )
    if compose:
        Path(compose).expanduser().write_text(ready.compose(), "utf-8")
    if ray:
        text = ready.ray(replicas or (4 if gpus else 1), streams, store)
        Path(ray).expanduser().write_text(text, "utf-8")
    if not quiet:
        _print_notes([*ready.notes, *_ray_notes(ray, host)], folder, world)
    if run:
        ready.run(program, world)
    print(ready.script(), end="", file=world.stdout)


# Flags that change the presets.
_PRESET_FLAGS = ("adapter", "format", "revision", "system", "context")


def _ray_notes(ray: str, host: str) -> list[str]:
    from llmchat.deploy import LOOPBACK

    if not ray or host in LOOPBACK:
        return []
    return [f"Ray Serve asks for no key: everybody who reaches {host} can use it"]


def _print_notes(notes: list[str], folder: Path, world: World) -> None:
    for note in notes:
        print(f"note: {note}", file=world.stderr)
    print(f"files: {folder}", file=world.stderr)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--vllm-flags cannot be read: {error}") from error
