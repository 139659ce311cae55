"""The command that converts a model to a GGUF file or int4 weights."""

from pathlib import Path
from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.settings import World


def convert(
    ctx: typer.Context,
    model: options.ModelArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORM",
            help="gguf:KIND for other programs, such as gguf:Q4_K_M (F32, F16, BF16, Q8_0, Q5_1,"
            " Q5_0, Q4_1, Q4_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K,"
            " IQ4_NL, IQ4_XS, MXFP4_MOE), or int4 for llmchat on other machines.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file (gguf) or folder (int4); by default in the current folder.",
        ),
    ] = "",
    base: options.Base = None,
    adapter: options.Adapter = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier copy.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as a GGUF file for llama.cpp, or as int4 weights for llmchat.

    Adapters are merged. The copy has the tokenizer, the chat template and the licence.
    """
    from llmchat.models import convert as converting
    from llmchat.models.opener import preset_of
    from llmchat.output.formatting import byte_count
    from llmchat.output.progress import ByteProgress, NoProgress

    world: World = ctx.obj
    kind = converting.kind_named(to)
    preset = preset_of(world, model=model, base=base, adapter=adapter)
    target = Path(output).expanduser() if output else converting.default_target(preset, kind)
    converting.check_free(target, kind, force=force)
    progress = NoProgress() if quiet else ByteProgress(world)
    size = converting.convert(preset, kind, target, world, progress)
    print(f"{target}: {byte_count(size, decimals=0)}; llmchat chat -m {target}", file=world.stderr)
