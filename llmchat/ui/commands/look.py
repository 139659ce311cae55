"""Commands that only look: help, show, stats."""

from llmchat import doctor
from llmchat.errors import UsageError, did_you_mean
from llmchat.models import facts
from llmchat.ui import status, tables
from llmchat.ui.commands.registry import Answer, command, registry
from llmchat.ui.state import Talk

_PARTS = ("info", "license", "template", "prompt")


@command("help", "[command]", "This list, or what a command does.", aliases=("?",), complete=lambda talk, word: registry.names())
def show_help(talk: Talk, rest: str) -> Answer:
    shown = [registry.get(rest.lstrip("/"))] if rest else list(registry)
    width = talk.width()
    for one in shown:
        if one is None:
            raise UsageError(f"there is no command /{rest}", did_you_mean(rest, registry.names()))
        also = f" (also {', '.join('/' + alias for alias in one.aliases)})" if one.aliases else ""
        name = f"/{one.name} {one.arguments}"
        talk.say(f"{name:24}{one.help}{also}" if width >= 80 else f"{name}\n  {one.help}{also}")
    if not rest:
        talk.say('\nEnter sends; Alt+Enter or Ctrl-J makes a new line; """ opens a block; Ctrl-G opens the editor.')
        talk.say("Ctrl-C stops an answer, Ctrl-D leaves; ← and → on an empty line show other answers.")
    return None


@command(
    "show",
    "{info|license|template|prompt}",
    "The model's facts, its licence, its prompt format and what `llmchat doctor` finds, or the conversation word for word as it is given.",
    complete=lambda t, w: _PARTS,
)
def show(talk: Talk, rest: str) -> Answer:
    chat = talk.chat
    if rest == "info":
        tables.model_facts(talk.world, facts(chat.preset, talk.world) | {"session": chat.session or ""})
    elif rest in ("license", "licence"):
        talk.say(chat.preset.licence)
    elif rest == "template":
        form = chat.preset.format
        for line in doctor.lines(doctor.examine(chat.preset, talk.world)):
            talk.say(line)
        talk.say("\nThe format itself:\n")
        talk.say(form.template if form.template is not None else tables.pretty_json(form.parts))
    elif rest == "prompt":
        talk.say(chat.preset.format.render(chat.look().messages).text)
    else:
        raise UsageError(f"/show takes {', '.join(_PARTS)}", did_you_mean(rest, _PARTS) if rest else "")
    return None


@command("stats", "", "Tokens and times of the last answer.")
def stats(talk: Talk, rest: str) -> Answer:
    for line in status.statistics(talk.chat):
        talk.say(line)
    return None
