"""Actions the REPL offers below a message, each taken with one number key."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class QuickAction:
    """A labelled action, such as `[1] try again`."""

    label: str
    run: Callable[[], None]


class QuickActions:
    """The actions that are open now. Typing anything else withdraws them."""

    def __init__(self, show: Callable[[str], None]):
        self._show = show
        self._actions: list[QuickAction] = []

    def __len__(self) -> int:
        return len(self._actions)

    def offer(self, actions: list[QuickAction]) -> None:
        """Replace the open actions, and print the new ones on one line."""
        self._actions = actions
        if actions:
            labels = [f"[{number}] {action.label}" for number, action in enumerate(actions, 1)]
            self._show("  ".join([*labels, "[Enter] nothing"]))

    def withdraw(self) -> None:
        self._actions = []

    def take(self, number: int) -> QuickAction:
        """Return the action with this number, counted from 1, and withdraw all."""
        action = self._actions[number - 1]
        self.withdraw()
        return action
