"""An engine whose model loads in a thread, so that the user can type meanwhile."""

import threading
from collections.abc import Callable, Generator

from llmchat.engines import Chunk, Engine, Finish, Prefill, Sampling, Unloaded
from llmchat.prompt import Prompt

# Short, so that Ctrl-C reaches a program that waits for the model.
_WAIT_STEP_S = 0.05


class LoadingEngine:
    """The engine that `load` returns, usable at once: what needs the model waits for it.

    Loading begins with `start`, or with the first use. If it fails, each use raises its error.
    `doing` names the step it is at, in a word. See `capabilities.unwrap` for what the model can do.
    """

    def __init__(self, load: Callable[[], Engine], title: str):
        self._title = title
        self.doing = "loading"
        self._loaded: Engine | None = None
        self._error: Exception | None = None
        self._unloaded = False
        self._lock = threading.Lock()
        self._notify: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, args=(load,), name="load", daemon=True)

    def start(self) -> None:
        """Begin to load, unless it has begun."""
        if self._thread.ident is None and not self._unloaded:
            self._thread.start()

    @property
    def wrapped(self) -> Engine | None:
        """The loaded engine; None while there is none."""
        return self._loaded

    @property
    def ready(self) -> bool:
        """Whether a use returns or raises without waiting."""
        return self._loaded is not None or self._error is not None

    def when_ready(self, notify: Callable[[], object]) -> None:
        """Call `notify` when loading ends, from its thread, or now if it has ended."""
        self._notify = notify
        if self.ready:
            notify()

    @property
    def context(self) -> int:
        return self._engine().context

    @property
    def load_s(self) -> float:
        return self._engine().load_s

    @property
    def resumes(self) -> bool:
        """True while loading: the answer is not known yet."""
        return self._loaded is None or self._loaded.resumes

    def describe(self) -> str:
        if self._loaded:
            return self._loaded.describe()
        if self._error or self._unloaded:
            return f"{self._title} (not loaded)"
        return f"{self._title} ({self.doing} …)"

    def count(self, text: str) -> int:
        return self._engine().count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self._engine().encode(prompt)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        return self._engine().stream(prompt, sampling)

    def clear_cache(self) -> None:
        """Does nothing while the model loads: it has read nothing."""
        if self._loaded:
            self._loaded.clear_cache()

    def unload(self) -> None:
        """Does not wait: a model that is still loading is freed as soon as it is loaded."""
        with self._lock:
            self._unloaded = True
            if self._loaded:
                self._loaded.unload()

    def _engine(self) -> Engine:
        self.start()
        while self._thread.is_alive():
            self._thread.join(_WAIT_STEP_S)
        if self._error:
            raise self._error
        if self._loaded is None:
            raise Unloaded(self._title)
        return self._loaded

    def _run(self, load: Callable[[], Engine]) -> None:
        try:
            engine = load()
        except Exception as error:
            self._error = error
        else:
            self._keep(engine)
        self._notify()

    def _keep(self, engine: Engine) -> None:
        with self._lock:
            self._loaded = engine
            if self._unloaded:
                engine.unload()
