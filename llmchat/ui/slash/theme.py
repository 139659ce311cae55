"""Commands for how the terminal looks: theme."""

from collections.abc import Iterable

from llmchat.errors import LlmchatError
from llmchat.output.terminal_text import colours_of
from llmchat.settings import World
from llmchat.ui import printing, status, themes
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState

_SAMPLE = """\
## A heading

Text with `code`, **strong** words, a [link](https://example.org) and

> a quote.

```python
@cache
def area(radius: float) -> float:
    return 3.14 * radius**2  # in "square metres"
```

| planet | moons |
|---|---:|
| Mars | 2 |
"""


def _names(state: ReplState, word: str) -> Iterable[tuple[str, str]]:
    own = state.world.own_themes
    return [(name, _meaning(state.world, name)) for name in themes.names(own)]


@command(
    "theme",
    "[name]",
    "Switch the colours and show a sample; alone, list the themes.",
    complete=_names,
)
def theme(state: ReplState, rest: str) -> Answer:
    if not rest:
        _list(state)
        return None
    themes.use(state.world, rest)
    _print_sample(state)
    if state.plain or not colours_of(state.world):
        reason = "/plain is on" if state.plain else "this terminal shows no colours"
        state.print_note(f"note: {reason}")
    state.print_note(f"`llmchat config set theme {rest}` keeps it for new chats")
    return None


def _list(state: ReplState) -> None:
    used = themes.current(state.world).name
    names = themes.names(state.world.own_themes)
    width = max(map(len, names))
    for name in names:
        mark = "*" if name == used else " "
        state.print(f"{mark} {name:{width}}  {_meaning(state.world, name)}")
    state.print_note(f"yours: {state.world.own_themes}/NAME.toml")


def _meaning(world: World, name: str) -> str:
    """What a theme is for, or why its file is invalid."""
    try:
        return themes.find_theme(name, world.own_themes).description
    except LlmchatError as error:
        return f"invalid: {error.message}"


def _print_sample(state: ReplState) -> None:
    """A bit of everything that a theme colours."""
    world, width = state.world, state.width()
    section = DimmedSection(world, plain=state.plain)
    section.feed("thinking", "A thought of the model.")
    section.finish()
    state.print_answer(_SAMPLE)
    state.print_tool_line('tool 1: calculate(expression="6*7")')
    printing.print_error(world, LlmchatError("an error", "a hint, as in notes"), width)
    printing.print_status(world, status.bottom_line(state.chat, width).rstrip(), width)
