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


@app.command()
def vllm(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A preset; several with adapters on the same base share a server.",
            autocompletion=options.complete_model,
        ),
    ],
    adapter: options.Adapter = None,
    format: options.Format = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = None,
    system: options.System = None,
    context: options.Context = None,
    merged: Annotated[
        bool | None,
        typer.Option(
            "--merged/--lora",
            help="Merge adapters, or keep them live; by default live where vLLM can.",
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option(
            min=0, help="GPUs of a host; 0 to serve on its CPU.", rich_help_panel=HARDWARE
        ),
    ] = 1,
    hosts: Annotated[
        int,
        typer.Option(min=1, help="Hosts; above 1 a pipeline over Ray.", rich_help_panel=HARDWARE),
    ] = 1,
    gpu_memory: Annotated[
        float,
        typer.Option(
            min=0, help="GB of one GPU; with it the fit is checked.", rich_help_panel=HARDWARE
        ),
    ] = 0,
    dtype: Annotated[
        str, typer.Option(help="auto, bfloat16, float16 or float32.", rich_help_panel=HARDWARE)
    ] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    vllm_flags: Annotated[
        str, typer.Option(metavar="FLAGS", help="More flags for vLLM, in one quoted string.")
    ] = "",
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the files; NAME-vllm.",
            rich_help_panel=FILES,
        ),
    ] = "",
    compose: Annotated[
        str,
        typer.Option(metavar="FILE", help="Write a Docker Compose file.", rich_help_panel=FILES),
    ] = "",
    ray: Annotated[
        str, typer.Option(metavar="FILE", help="Write a Ray Serve config.", rich_help_panel=FILES)
    ] = "",
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of Ray Serve, at most: 4, or 1 without GPUs.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    streams: Annotated[
        int,
        typer.Option(
            min=1, help="Requests a replica of Ray Serve is meant to have.", rich_help_panel=FILES
        ),
    ] = 32,
    store: Annotated[
        str,
        typer.Option(
            metavar="URI",
            help="Where Ray finds adapters: s3://, gs://, azure://.",
            rich_help_panel=FILES,
        ),
    ] = "",
    run: Annotated[
        bool, typer.Option("--run", help="Start the server, not only print the command.")
    ] = False,
    program: Annotated[
        str, typer.Option("--vllm", metavar="PATH", help="vLLM's program.")
    ] = "vllm",
    quiet: options.Quiet = False,
) -> None:
    """Print the `vllm serve` command of a preset, with our format as its chat template, or run it."""
    from llmchat.deploy import LOOPBACK, Hardware, plan
    from llmchat.deploy.sizing import BYTES
    from llmchat.models.opener import preset_of

    if dtype not in BYTES:
        raise UsageError(f"`{dtype}` is no dtype", f"there are {', '.join(BYTES)}")
    world: World = ctx.obj
    changes = {
        "adapter": adapter,
        "format": format,
        "revision": revision,
        "system": system,
        "context": context,
    }
    presets = [preset_of(world, model=name, **changes) for name in models]
    folder = Path(out or f"{Path(presets[0].name).name}-vllm").expanduser().resolve()
    ready = plan(
        presets, world, Hardware(hosts, gpus, gpu_memory * 1e9), folder, merged=merged, dtype=dtype, host=host, port=port, flags=_words(vllm_flags),
        code=resolve(world, {"trust_remote_code": trust_remote_code}).options.trust_remote_code, asked=[models[0], *(["--adapter", adapter] if adapter else [])],
    )  # fmt: skip
    for name, text in (
        (compose, ready.compose),
        (ray, lambda: ready.ray(replicas or (4 if gpus else 1), streams, store)),
    ):
        if name:
            Path(name).expanduser().write_text(text(), "utf-8")
    if not quiet:
        open_ray = (
            [f"Ray Serve asks for no key: everybody who reaches {host} can use it"]
            if ray and host not in LOOPBACK
            else []
        )
        for note in (*ready.notes, *open_ray):
            print(f"note: {note}", file=world.stderr)
        print(f"files: {folder}", file=world.stderr)
    if run:
        ready.run(program, world)
    print(ready.script(), end="", file=world.stdout)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--vllm-flags cannot be read: {error}") from error
