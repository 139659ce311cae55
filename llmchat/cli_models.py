"""The commands that keep models: pull, ls, show, rm, verify, presets."""

from typing import Annotated, Any

import typer

from llmchat import flags
from llmchat.errors import UsageError
from llmchat.settings import World, resolve

app = typer.Typer()


@app.command()
def pull(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Presets, Hub repos or .gguf files.")],
    base: flags.Base = None,
    adapter: flags.Adapter = None,
    revision: flags.Revision = None,
    offline: flags.Offline = None,
    quiet: flags.Quiet = False,
) -> None:
    """Download, check and prepare models; goes on where it stopped."""
    from llmchat.hub import Bar, Silent
    from llmchat.models import fetch
    from llmchat.presets import choose
    from llmchat.ui import tables

    world = World.real()
    for name in models:
        settings = resolve(world, {"model": name, "base": base, "adapter": adapter, "revision": revision, "offline": offline})
        world = world.cut_off() if settings.options.offline else world
        preset = choose(settings.options, world.own_presets)
        for pulled in fetch(preset, world, Silent() if quiet else Bar(world.stderr)):
            if not quiet:
                notes = "; ".join(pulled.notes) or "already here"
                print(f"{pulled.checkpoint.source}: {notes} ({tables.size(pulled.checkpoint.size)})", file=world.stderr)


@app.command("ls")
def list_models(json: flags.Json = False, quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Names only.")] = False) -> None:
    """The models that are on this machine."""
    from llmchat.models import pulled_presets
    from llmchat.ui import tables

    world = World.real()
    rows = [
        {"name": preset.name, "size": sum(part.size for part in parts), "weights": preset.weights, "licence": preset.licence}
        for preset, parts in pulled_presets(world)
    ]
    tables.rows(world, rows, ("name", "size", "weights", "licence"), json=json, quiet=quiet)


@app.command()
def show(model: Annotated[str, typer.Argument(help="A preset, a Hub repo, a folder or a .gguf file.")], json: flags.Json = False) -> None:
    """What is known of a model: files, format, context, licence, notes."""
    from llmchat.models import facts
    from llmchat.opening import preset_of
    from llmchat.ui import tables

    world = World.real()
    tables.facts(world, facts(preset_of(world, model=model), world), json=json)


@app.command("rm")
def remove_model(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models to remove; files that another model needs stay.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove downloaded models from this machine."""
    from llmchat.models import discard
    from llmchat.opening import preset_of
    from llmchat.ui import tables

    world = World.real()
    for name in models:
        preset = preset_of(world, model=name)
        if not yes and not (world.interactive and typer.confirm(f"remove the files of {preset.name}?")):
            raise UsageError("nothing was removed", "-y removes without asking")
        print(f"{preset.name}: {tables.size(discard(preset, world))} freed", file=world.stderr)


@app.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Without a name: all that are here.")] = None,
) -> None:
    """Read every file of a model again and compare it with its checksum."""
    from llmchat.hub import verify as verify_source
    from llmchat.models import pulled_presets, sources
    from llmchat.opening import preset_of

    world = World.real()
    presets = [preset_of(world, model=name) for name in models] if models else [preset for preset, _ in pulled_presets(world)]
    for preset in presets:
        for source in sources(preset):
            checkpoint = verify_source(source, world)
            typer.echo(f"{preset.name}: {checkpoint.source} is as it was downloaded")


@app.command()
def presets(
    formats: Annotated[bool, typer.Option("--formats", help="The prompt formats instead.")] = False,
    json: flags.Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Names only.")] = False,
) -> None:
    """The models and prompt formats llmchat knows by name."""
    from llmchat import presets as room
    from llmchat.ui import tables

    world = World.real()
    if formats:
        rows: list[dict[str, Any]] = [{"name": name, "source": room.get_format(name).source} for name in room.formats()]
        return tables.rows(world, rows, ("name", "source"), json=json, quiet=quiet)
    found = room.names(world.own_presets).values()
    rows = [
        {
            "name": preset.name,
            "title": preset.title,
            "parameters": preset.parameters,
            "format": preset.format.name,
            "licence": preset.licence,
        }
        for preset in found
    ]
    tables.rows(world, rows, ("name", "title", "format", "licence"), json=json, quiet=quiet)
