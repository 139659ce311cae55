"""Deploy a preset to vLLM when one machine is not enough.

The server uses the same prompt text, stop tokens and sampling. Nothing here starts a server.
"""

import os
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from llmchat import hub
from llmchat.deploy import vllm
from llmchat.deploy.check import differing
from llmchat.deploy.facts import ServedModel, read_served_model
from llmchat.deploy.files import compose, ray_serve, write_folder
from llmchat.deploy.sizing import Hardware, Layout, arrange
from llmchat.deploy.vllm import Request
from llmchat.errors import Mismatch, OutOfResources, UsageError
from llmchat.presets import Preset
from llmchat.process.programs import SAFE_PATH, which
from llmchat.settings import World

# Addresses that only programs of this machine reach.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

__all__ = ["Deployment", "Hardware", "Request", "plan"]


class Deployment(Struct, frozen=True):
    """What will be served, and how.

    asked: MODEL and flags as the user gave them; merges: adapters are merged into `request.model`
    first.
    """

    models: tuple[ServedModel, ...]
    request: Request
    layout: Layout
    hardware: Hardware
    folder: Path
    notes: tuple[str, ...]
    asked: tuple[str, ...] = ()
    merges: bool = False

    def command(self, program: str = "vllm") -> list[str]:
        return vllm.command(self.models, self.request, self.layout, self.folder, program)

    def script(self) -> str:
        """All commands in their order, as a shell reads them."""
        lines = []
        if self.merges:
            lines.append(shlex.join(["llmchat", "merge", *self.asked, "-o", self.request.model]))
        if self.hardware.hosts > 1:
            lines += [
                "# on the first host",
                "ray start --head --port=6379",
                f"# on each of the other {self.hardware.hosts - 1}, with its address",
            ]
            lines += [
                "ray start --address=FIRST_HOST:6379",
                "# on the first host, when `ray status` shows every GPU",
            ]
        return "\n".join([*lines, shlex.join(self.command())]) + "\n"

    def compose(self) -> str:
        """A Docker Compose file. Raises UsageError for several hosts."""
        if self.hardware.hosts > 1:
            raise UsageError(
                "Docker Compose is for one host",
                "over several hosts: --ray FILE, or the commands with Ray",
            )
        if not self.hardware.gpus:
            raise UsageError(
                "the Docker Compose file is for GPUs",
                "without one: the printed command, or --ray FILE",
            )
        return compose(self.models, self.request, self.layout, self.folder)

    def ray(self, copies: int, streams: int, store: str) -> str:
        return ray_serve(
            self.models,
            self.request,
            self.layout,
            self.folder,
            cpu=not self.hardware.gpus,
            copies=copies,
            streams=streams,
            store=store,
        )

    def run(self, program: str, world: World) -> NoReturn:
        """Merge where that is due, then become the server: it hears Ctrl-C and signals itself."""
        found = which(program, world.env)
        if not found:
            raise UsageError(
                f"`{program}` is not on the PATH",
                "install vLLM in an environment of its own; --vllm names its program",
            )
        if self.merges and not Path(self.request.model, "config.json").exists():
            from llmchat.models.merge import merge

            print(f"merging into {self.request.model} …", file=world.stderr, flush=True)
            merge(self.models[0].preset, Path(self.request.model), world)
        world.stdout.flush()
        os.execve(found, self.command(found), {**world.env, **SAFE_PATH})


def plan(
    presets: Sequence[Preset],
    world: World,
    hardware: Hardware,
    folder: Path,
    *,
    merged: bool | None = None,
    dtype: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8000,
    flags: Sequence[str] = (),
    code: bool = False,
    asked: Sequence[str] = (),
) -> Deployment:
    """Decide how to serve these presets, and write what the server reads into `folder`.

    merged: None keeps adapters live where vLLM can; code: whether the checkpoint may run Python
    code of its own. Raises Mismatch for what vLLM does not run, and OutOfResources for what does
    not fit.
    """
    code = code or "--trust-remote-code" in flags
    for preset in presets:
        vllm.check_served(preset.name, preset.architecture, {})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = tuple(
            read_served_model(preset, world, scratch / str(index), code)
            for index, preset in enumerate(presets)
        )
        for served in models:
            vllm.check_served(served.preset.name, served.architecture, served.base.config)
            hub.refuse_foreign_code(
                served.preset.base, served.base.revision, served.base.config, trusted=code
            )
        vllm.check_together(models)
        lora, notes = _live(models, merged)
        first = models[0]
        merges = bool(first.adapters) and not lora
        model = str(folder / "model") if merges else ""
        layout = arrange(hardware, first.base.config, first.parameters, first.context, dtype)
        code = code and "--trust-remote-code" not in flags
        request = Request(lora, host, port, dtype, model, tuple(flags), code)
        write_folder(models, request, folder)
        notes += _size_notes(hardware, layout, first, dtype)
        notes += _notes(models, world, host, folder)
        asked = tuple(asked) or (first.preset.name,)
        return Deployment(models, request, layout, hardware, folder, tuple(notes), asked, merges)


def _live(models: Sequence[ServedModel], merged: bool | None) -> tuple[bool, list[str]]:
    """Whether the adapters stay live, and why not."""
    if not any(served.adapters for served in models):
        return False, []
    problem = next(
        (
            f"{served.preset.name}: {line}"
            for served in models
            if (line := vllm.lora_problem(served))
        ),
        "",
    )
    if len(models) > 1 and (merged or problem):
        raise Mismatch(
            problem or "merged checkpoints need a server each",
            "serve them one by one, with --merged",
        )
    if merged is False and problem:
        raise Mismatch(problem, "--merged serves a checkpoint with the adapter in it")
    return not (merged or problem), [
        f"{problem}; so it is merged first"
    ] if problem and merged is None else []


def _size_notes(hardware: Hardware, layout: Layout, served: ServedModel, dtype: str) -> list[str]:
    notes = []
    if hardware.memory and not layout.weights:
        notes.append("its size is unknown before the download; whether it fits was not checked")
    if layout.cache:
        chats = ""
        if served.context:
            count = layout.cache // served.context
            chats = f", {count:,} chats of {served.context:,} tokens at once"
        weights = f"{layout.weights / 1e9:.1f} GB of weights"
        notes.append(f"a copy is {weights} and has room for {layout.cache:,} tokens{chats}")
    if layout.pipeline > 1 and layout.cache and _fits_one(hardware, served, dtype):
        notes.append(
            "it fits one host: a copy on each, behind a load balancer, answers more than a pipeline"
            " (docs/scaling.md)"
        )
    idle = hardware.hosts * hardware.gpus - layout.gpus
    if idle > 0:
        notes.append(f"{idle} of the GPUs stay idle: the model's heads divide by {layout.tensor}")
    return notes


def _fits_one(hardware: Hardware, served: ServedModel, dtype: str) -> bool:
    try:
        arrange(
            Hardware(1, hardware.gpus, hardware.memory),
            served.base.config,
            served.parameters,
            served.context,
            dtype,
        )
        return True
    except OutOfResources:
        return False


def _notes(models: Sequence[ServedModel], world: World, host: str, folder: Path) -> list[str]:
    first = models[0]
    notes = []
    if first.preset.format.stops:
        notes.append(
            "send the stop strings with each request, as request.json does; the server stores none"
        )
    if first.preset.format.unescapes:
        notes.append("the model writes line ends in marks of its own; clients must turn them back")
    if any(served.preset.sampling != first.preset.sampling for served in models[1:]):
        notes.append(
            f"sampling defaults are those of {first.preset.name}; requests may bring others"
        )
    if first.format.template is not None and first.preset.system:
        notes.append(
            "the preset's system text is not in the checkpoint's template:"
            " send it with each request"
        )
    notes += [f"read otherwise than by llmchat, {line}" for line in differing(first, folder)]
    if host not in LOOPBACK and not world.env.get("VLLM_API_KEY"):
        notes.append(f"everybody who reaches {host} can use it: set VLLM_API_KEY")
    return notes
