"""What commands open: a preset with its model in memory, and the history they look at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmchat.models import saved_kv
from llmchat.models.loading import Model, adapt, load, locate, provenance, title
from llmchat.models.warm import Opened
from llmchat.presets import Preset, opening_of, preset_for, without_credentials
from llmchat.progress import NoProgress, Progress
from llmchat.settings import OF_MODEL, Options, World, resolve

if TYPE_CHECKING:
    from llmchat.engines import Engine
    from llmchat.engines.loading_engine import LoadingEngine
    from llmchat.history import History

# Flags that belong to the model they were given with, not to the next one.
_OF_ONE_MODEL = ("base", "adapter", "format", "revision", "weights", "engine")


class Opener:
    """Opens models with the flags of one command line, and other ones in their place.

    session: what it had read is taken up again; opens: what it was opened with, see settings.resolve.
    """

    def __init__(
        self,
        world: World,
        flags: Mapping[str, Any],
        session: str | None = None,
        opens: Mapping[str, Any] | None = None,
    ):
        self.world = world
        self._flags = dict(flags)
        self._session = session
        self._opens = dict(opens or {})
        self._last: tuple[Model, Options] | None = None

    @property
    def continues(self) -> bool:
        """Whether the model is that of an earlier session."""
        return bool(self._opens)

    def options(self) -> Options:
        """The options of the model that is opened."""
        return resolve(self.world, self._flags, self._opens).options

    def open(self, *, waiting: bool = False, **changes: Any) -> Opened:
        """The model of the command line with `changes` to its options, which hold from then on. waiting: say on stderr what takes the time."""
        model, options, flags, opens = self._locate(changes)
        opened = self._opened(model, options, self._load_visibly(model, options, waiting))
        self._flags, self._opens = flags, opens
        return opened

    def open_later(self) -> Opened:
        """The same at once: the engine loads while others go on."""
        from llmchat.engines.loading_engine import LoadingEngine

        model, options, *_ = self._locate({})
        engine = LoadingEngine(
            lambda: self._load(model, options, _Behind(engine)), title(model.preset)
        )
        return self._opened(model, options, engine)

    def open_when_asked(self, *, waiting: bool = False) -> Opened:
        """The same at once, for a question that is to be stored first: the engine loads when it is asked. waiting: as in `open`."""
        from llmchat.engines.loading_engine import LoadingEngine

        model, options, *_ = self._locate({})
        engine = LoadingEngine(
            lambda: self._load_visibly(model, options, waiting), title(model.preset)
        )
        return self._opened(model, options, engine)

    def open_as(self, session: str, opens: Mapping[str, Any]) -> Opened:
        """The model of another session in place of this one."""
        before = self._flags, self._opens, self._session
        kept = {name: value for name, value in self._flags.items() if name not in OF_MODEL}
        self._flags, self._opens, self._session = kept, dict(opens), session
        try:
            return self.open(waiting=True)
        except BaseException:
            self._flags, self._opens, self._session = before
            raise

    def adapt(self, engine: "Engine", adapter: str) -> Opened | None:
        """The same model with another adapter put on live, in the same engine; None where it must be loaded anew."""
        model, options, flags, opens = self._locate({"adapter": adapter})
        if self._last is None or not adapt(engine, *self._last, model, options):
            return None
        self._flags, self._opens = flags, opens
        return self._opened(model, options, engine)

    def _opened(self, model: Model, options: Options, engine: "Engine") -> Opened:
        opens = opening_of(options, self.world.own_presets)
        if model.elsewhere and (options.url or options.engine):
            # The only model of a server, or an address of the environment, may be another one later.
            url = without_credentials(model.elsewhere.connection.base)
            opens |= {"url": url, "model": options.model or model.elsewhere.served.name}
        return Opened(model.preset, engine, provenance(model), opens)

    def _load_visibly(self, model: Model, options: Options, waiting: bool) -> "Engine":
        shown = _Waiting(
            self.world,
            f"loading {title(model.preset)} …",
            shown=waiting and self.world.stderr.isatty(),
        )
        try:
            return self._load(model, options, shown)
        finally:
            shown.close()

    def _load(self, model: Model, options: Options, progress: Progress | None = None) -> "Engine":
        engine = load(model, options, progress)
        self._last = model, options
        if self._session:
            saved_kv.restore(engine, self._session, provenance(model), self.world)
        return engine

    def _locate(
        self, changes: Mapping[str, Any]
    ) -> tuple[Model, Options, dict[str, Any], dict[str, Any]]:
        flags, opens = self._flags | dict(changes), self._opens
        if "model" in changes:
            kept = {name: value for name, value in self._flags.items() if name not in _OF_ONE_MODEL}
            # Another model of the same server.
            server = {"url": opens["url"]} if "url" in opens else {}
            flags, opens = server | kept | dict(changes), {}
        options = resolve(self.world, flags, opens).options
        model = locate(preset_for(options, self.world.own_presets), self.world)
        return model, options, flags, opens


class _Waiting(NoProgress):
    """What a person waits for, in a line on stderr that goes again. Where it is not to be shown, the notes alone."""

    def __init__(self, world: World, what: str, *, shown: bool):
        self._stream, self._shown = world.stderr, shown
        self._clear = "\n" if world.env.get("TERM") == "dumb" else "\r\033[K"
        self._what = self._step = what
        self._total = self._done = self._percent = 0
        self._say(what)

    def start(self, what: str, total: int | None) -> None:
        self._step, self._total, self._done, self._percent = f"{what} once …", total or 0, 0, 0
        self._say(f"{self._clear}{self._step}")

    def advance(self, count: int) -> None:
        self._done += count
        percent = 100 * self._done // self._total if self._total else 0
        if percent > self._percent and self._clear != "\n":
            self._percent = percent
            self._say(f"{self._clear}{self._step} {percent} %")

    def done(self) -> None:
        self._say(f"{self._clear}{self._what}")

    def note(self, line: str) -> None:
        print(f"{self._clear if self._shown else ''}{line}", file=self._stream, flush=True)

    def close(self) -> None:
        self._say(self._clear)

    def _say(self, text: str) -> None:
        if self._shown:
            print(text, end="", file=self._stream, flush=True)


class _Behind(NoProgress):
    """Tells the engine's stand-in what it is at, for the status line."""

    def __init__(self, engine: "LoadingEngine"):
        self._engine = engine

    def start(self, what: str, total: int | None) -> None:
        self._engine.doing = "preparing, once"

    def done(self) -> None:
        self._engine.doing = "loading"


def preset_of(world: World, **flags: Any) -> Preset:
    return preset_for(resolve(world, flags).options, world.own_presets)


def saved_history(world: World) -> "History":
    """The history for commands that only look at it: where there is none yet, an empty one that leaves no file."""
    from llmchat.history import History

    return History(world.history_file if world.history_file.exists() else None, world.now)
