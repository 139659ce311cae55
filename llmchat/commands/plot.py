"""`llmchat plot`: loss curves, scores and speeds that were saved."""

from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.settings import World


def plot(
    ctx: typer.Context,
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...",
            help="Folders of `llmchat finetune`, and files of `evaluate --json`, `evaluate"
            " --output` and `bench --json`; `-` is stdin.",
        ),
    ],
    plot_to: options.PlotTo = None,
) -> None:
    """Plot the losses of fine-tunes, the scores of evaluations or the speeds of benchmarks.

    Several fine-tunes share one chart. A pipe gets text without colour.
    """
    from llmchat.api.plotting import plot as read
    from llmchat.errors import UsageError
    from llmchat.output.plots.showing import show_asked, wish

    world: World = ctx.obj
    wanted = wish(plot_to, world, world.stdout)
    figure = read(*results, world=world).figure
    if figure.empty:
        raise UsageError("the results hold no values to plot")
    show_asked(figure, wanted, world, world.stdout)
