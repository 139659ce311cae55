"""`llmchat.pull`: downloads and prepares models for Python programs."""

from typing import Any

from msgspec.structs import asdict

from llmchat import hub
from llmchat.api.opening import checked
from llmchat.api.place import here
from llmchat.hub import report
from llmchat.models import pulling
from llmchat.output.progress import ByteProgress, NoProgress
from llmchat.presets import preset_for
from llmchat.settings import World, resolve


class Plan(hub.Plan, frozen=True):
    """Everything that a pull does or would do. `str(plan)` is a table for people."""

    def __str__(self) -> str:
        return "\n".join([*report.choices(self), *report.lines(self)])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How a notebook and IPython show it."""
        printer.text(str(self))


def pull(
    model: str,
    *,
    dry_run: bool = False,
    force: bool = False,
    prepare: bool = True,
    quiet: bool = False,
    world: World | None = None,
    **options: Any,
) -> Plan:
    """Download, check and prepare a model; files that are already here are not downloaded again.

    dry_run: only return what would be downloaded. force: pull even if it does not fit or match.
    prepare: write the quantised copy that makes chats start faster. quiet: show no progress.
    options: `base`, `adapter`, `revision`, `weights`, `context`, `offline` and the other options of
    `llmchat pull`. Raises the error of the first problem of the plan.
    """
    world = world or here()
    chosen = resolve(world, checked(options) | {"model": model}).options
    world = world.in_offline_mode() if chosen.offline else world
    code = chosen.trust_remote_code
    planned = pulling.plan_pull(
        preset_for(chosen, world.own_presets),
        world,
        device=chosen.device,
        code=code,
        thorough=force,
    )
    plan = Plan(**asdict(planned.plan))
    downloads = not all(part.here for part in plan.parts)
    plan.enforce(force=force, memory=dry_run or downloads)
    if not dry_run:
        progress = NoProgress() if quiet else ByteProgress(world)
        parts = pulling.pull(planned, world, progress, force=force)
        if prepare and parts:
            files = [part.checkpoint for part in parts]
            pulling.prepare_copy(planned.preset, files, world, progress, code=code)
    return plan
