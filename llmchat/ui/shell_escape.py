"""`!command` in the REPL: run it, print its output, and offer to attach the output."""

from llmchat.output.formatting import counted
from llmchat.output.terminal_text import fit_for
from llmchat.ui import shell
from llmchat.ui.quick_actions import QuickAction, QuickActions
from llmchat.ui.state import ReplState
from llmchat.ui.terminal_modes import without_echo


def run_shell_command(state: ReplState, actions: QuickActions, command: str) -> None:
    """Run a command in the user's shell, and offer its output for the next message."""

    def show(text: str) -> None:
        state.world.stdout.write(fit_for(state.world.stdout, text))
        state.world.stdout.flush()

    def attach() -> None:
        state.attached[f"$ {command}"] = output.text.strip()
        state.print_note("attached; it goes with your next message")

    with without_echo(state.world.stdin):
        output = shell.run(command, state.world, show)
    if not output.text.endswith("\n"):
        show("\n")
    if output.code:
        state.print_note(f"[exit code {output.code}]")
    if output.text.strip():
        label = f"attach the output ({_size(state, output)}) to the next message"
        actions.offer([QuickAction(label, attach)])


def _size(state: ReplState, output: shell.Output) -> str:
    tokens = state.count(output.text)
    unit, number = ("character", len(output.text)) if tokens is None else ("token", tokens)
    return counted(number, unit) + (", the first 1 MB" if output.cut else "")
