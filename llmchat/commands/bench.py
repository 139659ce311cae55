"""`llmchat bench`: how fast this machine runs a model."""

from typing import Annotated, Any

import typer

from llmchat.commands import options
from llmchat.settings.types import Weights, in_words

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
    from llmchat.bench import report as shown
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
        shown.show(report, world)
    show(speed_figure(report), wanted, world, stream)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
