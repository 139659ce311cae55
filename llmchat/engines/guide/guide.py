"""What may come next in one answer: its thoughts, then its structure."""

from collections.abc import Sequence
from typing import Any, Literal

from llmchat.engines.guide.mask import Mask
from llmchat.engines.guide.table import TokenTable
from llmchat.engines.guide.thought import Thoughts
from llmchat.errors import LlmchatError, first_line

# What comes next: a thought or the structure, the rest of a thought, white space or the structure,
# the structure, or any text.
Phase = Literal["either", "thought", "gap", "structure", "free"]
# The most tokens of white space between a thought and the structure.
_MOST_SPACE = 2
TOO_COMPLEX = "simplify its patterns: a repetition within a repetition can be too much"


class CannotGoOn(LlmchatError):
    """No token continues the structure, or it needs more work than llguidance's limits allow."""


class Guide:
    """Follows an answer token by token.

    matcher: of the structure, None if only thinking is limited. Stop tokens are allowed where the
    structure is complete, and never within a thought that comes before it.
    """

    def __init__(
        self,
        table: TokenTable,
        matcher: Any = None,
        thoughts: Thoughts | None = None,
        stop_ids: frozenset[int] = frozenset(),
    ):
        self._table = table
        self._matcher = matcher
        self._thoughts = thoughts
        self._stop_ids = [token for token in stop_ids if token < table.count]
        self._mask = table.empty_mask()
        # The tokens of the opening mark that are left, and whether the structure can begin as well.
        self._opening: list[int] = []
        self._can_begin = True
        self._spaces = 0
        self.phase: Phase = self._first_phase()

    def _first_phase(self) -> Phase:
        if self._thoughts is None:
            return "structure"
        if self._thoughts.inside:
            return "thought"
        if self._matcher is None:
            return "free"
        if self._thoughts.budget == 0:
            return "structure"
        self._opening = self._table.ids_of_mark(self._thoughts.opening)
        return "either"

    @property
    def done(self) -> bool:
        """Whether the structure is complete and nothing can follow."""
        return self.phase == "structure" and self._matcher.is_stopped() and not self._error

    @property
    def _error(self) -> str:
        return str(self._matcher.get_error())

    def forced(self) -> list[int]:
        """The next tokens, where there is no choice."""
        if self.phase == "structure":
            forced: list[int] = self._matcher.compute_ff_tokens()
            return forced
        if self.phase == "thought" and self._thoughts and self._thoughts.used_up:
            return self._table.ids_of_mark(self._thoughts.closing)
        return []

    def plausible(self, draft: Sequence[int]) -> list[int]:
        """The beginning of a draft that the structure allows."""
        if self.phase == "structure":
            return list(draft[: self._matcher.validate_tokens(list(draft))])
        return list(draft) if self.phase in ("thought", "free") else []

    def mask(self) -> Mask | None:
        """The tokens that may come next, None for any. It is valid until the next call.

        Raises CannotGoOn.
        """
        if self.phase == "free" or (self.phase == "thought" and self._matcher is None):
            return None
        if self.phase == "thought":
            return self._mask_of_thought()
        if self._can_begin:
            self._fill()
        else:
            self._mask.clear()
        if self.phase == "either":
            self._mask.add(self._opening[0])
        if self.phase == "gap":
            self._mask.unite(self._table.white_space)
        return self._mask

    def accept(self, token: int) -> None:
        """Add a token to the answer, which is none of the stop tokens. Raises CannotGoOn."""
        if self.phase == "structure":
            self._consume(token)
        elif self.phase == "either":
            self._accept_either(token)
        elif self.phase == "gap":
            self._accept_after_thought(token)
        elif self._thoughts:
            self._follow_thought(token, self._thoughts)

    def _fill(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._mask.address, self._mask.size)
        if error := self._error:
            line = first_line(Exception(error))
            raise CannotGoOn(f"the structure cannot be continued: {line}", TOO_COMPLEX)
        self._mask.discard(self._table.count)
        complete = bool(self._matcher.is_accepting())
        for token in self._stop_ids:
            if complete:
                self._mask.add(token)
            else:
                self._mask.discard(token)
        if self._mask.is_empty:
            raise CannotGoOn("no token of this model continues the structure")

    def _mask_of_thought(self) -> Mask:
        """Every token but those that end the answer, or that would begin the structure unseen."""
        assert self._thoughts
        self._mask.copy_of(self._table.everything)
        for token in (*self._stop_ids, *self._table.overrunning(self._thoughts.missing)):
            self._mask.discard(token)
        return self._mask

    def _consume(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            error = first_line(Exception(self._error))
            raise CannotGoOn(f"the structure does not allow the token {token}: {error}")

    def _accept_either(self, token: int) -> None:
        thinks = token == self._opening[0]
        if not thinks:
            self.phase = "structure"
            self._consume(token)
            return
        del self._opening[0]
        self._can_begin = self._can_begin and self._matcher.try_consume_tokens([token]) == 1
        if not self._opening:
            assert self._thoughts
            self.phase, self._thoughts.inside, self._can_begin = "thought", True, True
            self._matcher.reset()

    def _accept_after_thought(self, token: int) -> None:
        if token in self._table.white_space:
            self._spaces += 1
            self.phase = "structure" if self._spaces == _MOST_SPACE else "gap"
        else:
            self.phase = "structure"
            self._consume(token)

    def _follow_thought(self, token: int, thoughts: Thoughts) -> None:
        event = thoughts.feed(self._table.spelling(token))
        if event == "opened":
            self.phase = "thought"
        elif event == "closed":
            self.phase = "free" if self._matcher is None else "gap"
