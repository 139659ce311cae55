"""`llmchat bench`: how fast this machine runs a model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.settings import World
from llmchat.settings.types import Weights, in_words

if TYPE_CHECKING:
    from llmchat.bench.report import Benchmark

INTERRUPTED = 130
MEASURED = "Measurement"


_Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help=f"{in_words(Weights)}; may be repeated. By default all that fit.",
        rich_help_panel=options.MODEL,
    ),
]
_Rounds = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        help="Number of measurements; the table shows medians.",
        rich_help_panel=MEASURED,
    ),
]
_Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also measure llama.cpp, OpenVINO, CTranslate2 and transformers, where installed.",
        rich_help_panel=MEASURED,
    ),
]
_PeersPython = Annotated[
    str | None,
    typer.Option(
        metavar="PYTHON",
        help="A Python in which the peers of --compare are installed.",
        rich_help_panel=MEASURED,
    ),
]


@options.with_options("model", "base", "adapter", before="weights")
@options.with_options(
    "engine", "device", "revision", "trust_remote_code", "offline", before="rounds"
)
def bench(
    ctx: typer.Context,
    weights: _Weights = None,
    rounds: _Rounds = 3,
    compare: _Compare = False,
    peers_python: _PeersPython = None,
    plot_to: options.PlotTo = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **shared: Any,
) -> None:
    """Measure speed, use of the memory bandwidth, start-up time and memory of a model."""
    from llmchat import bench as room
    from llmchat.bench.peers import Peers
    from llmchat.bench.speed_plot import speed_figure
    from llmchat.output.plots.showing import show, wish
    from llmchat.ui.json_output import print_json

    # Each kind of weights is a measurement of its own.
    given = {name: value for name, value in options.given(ctx).items() if name != "weights"}
    world = options.world_of(ctx)
    stream = world.stderr if json else world.stdout
    wanted = wish(plot_to, world, stream, quiet=json)
    peers = Peers(world, peers_python) if compare or peers_python else None
    report = room.measure(room.plan(given, weights or (), world, peers), rounds, world, quiet=quiet)
    if json:
        print_json(world, report)
    else:
        print_report(report, world)
    show(speed_figure(report), wanted, world, stream)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def print_report(report: "Benchmark", world: World) -> None:
    """Print the machine, the table, and what was not measured."""
    from llmchat.bench.report import COLUMNS, build_line, cells
    from llmchat.ui import tables

    machine = report.machine
    heading = f"{report.model} on {machine['device']}: {machine['processor']}"
    rate = machine.get("read_bytes_per_second")
    memory = f", reads {rate / 1e9:.0f} GB/s" if rate else ""
    print(f"{heading}, {machine['cores']} cores{memory}", file=world.stdout)
    rounds = f"medians of {report.rounds} rounds" if report.rounds > 1 else "one round"
    lengths = f"{report.decode_tokens} tokens decoded, {report.prompt_tokens} prefilled"
    print(f"{lengths}; {rounds}\n", file=world.stdout)
    if not world.pretty:
        print("\t".join(COLUMNS), file=world.stdout)
    tables.rows(world, [cells(row) for row in report.rows], COLUMNS)
    builds = [build_line(row, report) for row in report.rows if row.build]
    if builds:
        print("", *builds, sep="\n", file=world.stdout)
    if report.skipped:
        lines = [f"not measured: {line}" for line in report.skipped]
        print("", *lines, sep="\n", file=world.stdout)
