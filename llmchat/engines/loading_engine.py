"""An engine that is still being loaded: the user types while the weights are read. Whoever needs the model waits for it."""

import threading
from collections.abc import Callable, Generator

from llmchat.engines import Chunk, Engine, Finish, Prefill, Sampling
from llmchat.prompt import Prompt

_STEP_SECONDS = 0.05


class LoadingEngine:
    """Stands in for the engine that `load` returns. The load begins with `start`, or with the first use, in a thread of its own; its error is
    raised at each use. `doing` says in a word what it is at."""

    def __init__(self, load: Callable[[], Engine], title: str):
        self._title = title
        self.doing = "loading"
        self._loaded: Engine | None = None
        self._error: Exception | None = None
        self._tell: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, args=(load,), name="load", daemon=True)

    def start(self) -> None:
        """Begin to load, unless that was done."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def loaded(self) -> Engine | None:
        """The engine itself; None while it is not there."""
        return self._loaded

    @property
    def ready(self) -> bool:
        """Whether a use need not wait, be it for a model or for an error."""
        return self._loaded is not None or self._error is not None

    def when_ready(self, tell: Callable[[], object]) -> None:
        """Call `tell` when the load ends, from its thread, or now where it has ended."""
        self._tell = tell
        if self.ready:
            tell()

    @property
    def context(self) -> int:
        return self._engine().context

    @property
    def load_s(self) -> float:
        return self._engine().load_s

    def describe(self) -> str:
        return (
            self._loaded.describe()
            if self._loaded
            else f"{self._title} (not loaded)"
            if self._error
            else f"{self._title} ({self.doing} …)"
        )

    def count(self, text: str) -> int:
        return self._engine().count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self._engine().encode(prompt)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        return self._engine().stream(prompt, sampling)

    def close(self) -> None:
        if self._loaded:
            self._loaded.close()

    def _engine(self) -> Engine:
        self.start()
        while self._thread.is_alive():
            # In steps, so that Ctrl-C is heard.
            self._thread.join(_STEP_SECONDS)
        if self._error:
            raise self._error
        assert self._loaded
        return self._loaded

    def _run(self, load: Callable[[], Engine]) -> None:
        try:
            self._loaded = load()
        except Exception as error:
            self._error = error
        self._tell()
