"""`llmchat chat`: the model of the flags, or of an earlier session, answers once or in a REPL."""

from contextlib import ExitStack
from typing import Any

import typer

from llmchat.commands import options
from llmchat.commands.chat_flags import ChatFlags
from llmchat.commands.signatures import with_flags_of
from llmchat.errors import UsageError
from llmchat.process.signals import orderly_end
from llmchat.settings import Settings, World, resolve


@options.with_sampling
@options.with_options(
    "model", "base", "adapter", "format", "weights", "kv", "engine", "url", "draft", "device",
    "revision", "trust_remote_code", "role", "system", before="file",
)  # fmt: skip
@options.with_options(
    "searxng_url", "allow_private", "docs", "gitignore", "context", "policy", "turns", "recall",
    "max_tokens", "offline", "tool", "mcp", "allow", "max_rounds", "root", before="json",
)  # fmt: skip
@with_flags_of(ChatFlags)
def chat(ctx: typer.Context, **_: Any) -> None:
    """Chat with a model: a REPL on a terminal, one answer for a PROMPT or piped text."""
    from llmchat.commands import chat_run, chat_start, one_shot
    from llmchat.commands.open_tools import print_tools
    from llmchat.models.sessions import open_history

    flags = ChatFlags.of(ctx)
    given = options.given(ctx) | flags.as_options()
    settings = resolve(ctx.obj, given)
    _use_theme(ctx.obj, settings)
    world: World = ctx.obj.in_offline_mode() if settings.options.offline else ctx.obj
    if settings.options.tool == ("list",):
        return print_tools(world)
    note = one_shot.note_on(world, quiet=flags.quiet)
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        history = stack.enter_context(open_history(world, settings))
        start = chat_start.start(world, flags, given, history, note)
        asked = chat_start.asked(start, note)
        raise typer.Exit(chat_run.run(start, asked, history, stack))


def _use_theme(world: World, settings: Settings) -> None:
    """Draw with the theme of the options. Where nothing is drawn, a wrong one is no error."""
    from llmchat.ui import themes

    name, origin = settings.options.theme, settings.origins["theme"]
    if not world.stdout.isatty() and origin != "flag":
        return
    try:
        themes.use(world, name)
    except UsageError as error:
        if origin == "flag":
            raise
        raise UsageError(f"{origin}: {error.message}", error.hint) from error
