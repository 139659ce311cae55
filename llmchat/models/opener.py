"""Opens the model of a command line, and other models in its place while a chat goes on."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from llmchat.models import saved_kv
from llmchat.models.loading import adapt, load
from llmchat.models.locate import Model, locate, provenance, title
from llmchat.models.open_model import OpenModel
from llmchat.models.structures import check_structure
from llmchat.output.progress import NoProgress, Progress
from llmchat.presets import Preset, preset_for, reopen_options, without_credentials
from llmchat.roles import with_role
from llmchat.settings import OF_MODEL, Options, World, resolve

if TYPE_CHECKING:
    from llmchat.engines import Engine
    from llmchat.engines.loading_engine import LoadingEngine

# Flags that belong to the model they were given with, not to the next one.
_OF_ONE_MODEL = ("base", "adapter", "format", "revision", "weights", "kv", "engine", "draft")


def preset_of(world: World, **flags: Any) -> Preset:
    """The preset that flags, variables and the config file name."""
    return preset_for(resolve(world, flags).options, world.own_presets)


class ModelOpener:
    """Opens models with the flags of one command line.

    session: its saved KV cache is loaded with the model. opens: what the session was opened with,
    see settings.resolve. role: the options of a role, which flags go before.
    """

    def __init__(
        self,
        world: World,
        flags: Mapping[str, Any],
        session: str | None = None,
        opens: Mapping[str, Any] | None = None,
        role: Mapping[str, Any] | None = None,
    ):
        self.world = world
        self._flags = dict(flags)
        self._role = dict(role or {})
        self._session = session
        self._opens = dict(opens or {})
        self._loaded: tuple[Model, Options] | None = None
        self._opened_with: Options | None = None

    @property
    def continues(self) -> bool:
        """Whether the model is that of an earlier session."""
        return bool(self._opens)

    def options(self) -> Options:
        """The options of the model that is opened."""
        return self.options_with(self._role)

    def options_with(self, role: Mapping[str, Any]) -> Options:
        """The same, with the options of another role."""
        return resolve(self.world, with_role(role, self._flags), self._opens).options

    def open_role(self, engine: "Engine", role: Mapping[str, Any]) -> OpenModel:
        """What is open, with the options of another role; loaded only if it names another model."""
        before, self._role = self._role, dict(role)
        try:
            model, options, *_ = self._locate({})
            if not self._is_open(options):
                return self.open(waiting=True)
            return self._opened(model, options, engine)
        except BaseException:
            self._role = before
            raise

    def _is_open(self, options: Options) -> bool:
        known = self._opened_with
        return known is not None and all(
            getattr(known, name) == getattr(options, name) for name in OF_MODEL
        )

    def open(self, *, waiting: bool = False, **changes: Any) -> OpenModel:
        """Load the model of the command line, with `changes` to its options, which stay changed.

        waiting: show progress on stderr.
        """
        model, options, flags, opens = self._locate(changes)
        opened = self._opened(model, options, self._load_visibly(model, options, waiting))
        self._flags, self._opens = flags, opens
        return opened

    def open_later(self) -> OpenModel:
        """The same, without waiting: the model loads in a thread."""
        from llmchat.engines.loading_engine import LoadingEngine

        model, options, *_ = self._locate({})
        engine = LoadingEngine(
            lambda: self._load(model, options, _LoadingStatus(engine)), title(model.preset)
        )
        return self._opened(model, options, engine)

    def open_when_asked(self, *, waiting: bool = False) -> OpenModel:
        """The same, for a question that is stored first: the model loads when it is asked.

        waiting: as in `open`.
        """
        from llmchat.engines.loading_engine import LoadingEngine

        model, options, *_ = self._locate({})
        engine = LoadingEngine(
            lambda: self._load_visibly(model, options, waiting), title(model.preset)
        )
        return self._opened(model, options, engine)

    def open_as(self, session: str, opens: Mapping[str, Any]) -> OpenModel:
        """Load the model of another session in place of this one."""
        before = self._flags, self._role, self._opens, self._session
        kept, role = _without(OF_MODEL, self._flags), _without(OF_MODEL, self._role)
        self._flags, self._role, self._opens, self._session = kept, role, dict(opens), session
        try:
            return self.open(waiting=True)
        except BaseException:
            self._flags, self._role, self._opens, self._session = before
            raise

    def adapt(self, engine: "Engine", adapter: str) -> OpenModel | None:
        """The same model with another adapter, in the same engine; None if it must be loaded."""
        model, options, flags, opens = self._locate({"adapter": adapter})
        if self._loaded is None or not adapt(engine, *self._loaded, model, options):
            return None
        self._flags, self._opens = flags, opens
        return self._opened(model, options, engine)

    def _opened(self, model: Model, options: Options, engine: "Engine") -> OpenModel:
        self._opened_with = options
        opens = reopen_options(options, self.world.own_presets)
        if model.elsewhere and (options.url or options.engine):
            # Later the server's only model, or the address of a variable, may be another one.
            url = without_credentials(model.elsewhere.connection.base)
            opens |= {"url": url, "model": options.model or model.elsewhere.served.name}
        return OpenModel(model.preset, engine, provenance(model), opens)

    def _load_visibly(self, model: Model, options: Options, waiting: bool) -> "Engine":
        shown = waiting and self.world.stderr.isatty()
        line = _LoadingLine(self.world, f"loading {title(model.preset)} …", shown=shown)
        try:
            return self._load(model, options, line)
        finally:
            line.close()

    def _load(self, model: Model, options: Options, progress: Progress | None = None) -> "Engine":
        engine = load(model, options, progress)
        self._loaded = model, options
        if self._session:
            saved_kv.restore(engine, self._session, provenance(model), self.world)
        return engine

    def _locate(
        self, changes: Mapping[str, Any]
    ) -> tuple[Model, Options, dict[str, Any], dict[str, Any]]:
        """The model with `changes`, its options, and the flags and `opens` that lead to it."""
        flags, opens = self._flags | dict(changes), self._opens
        if "model" in changes:
            kept = _without(_OF_ONE_MODEL, self._flags)
            # Another model of the same server.
            server = {"url": opens["url"]} if "url" in opens else {}
            flags, opens = server | kept | dict(changes), {}
        options = resolve(self.world, with_role(self._role, flags), opens).options
        model = locate(preset_for(options, self.world.own_presets), self.world)
        check_structure(model.preset.sampling.structure, model.preset.engine, model.elsewhere)
        return model, options, flags, opens


def _without(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


class _LoadingLine(NoProgress):
    """One line on stderr while a model loads, which is removed at the end.

    If it is not shown, only notes are printed.
    """

    def __init__(self, world: World, what: str, *, shown: bool):
        self._stream, self._shown = world.stderr, shown
        self._clear = "\n" if world.env.get("TERM") == "dumb" else "\r\033[K"
        self._what = self._step = what
        self._total = self._done = self._percent = 0
        self._write(what)

    def start(self, what: str, total: int | None) -> None:
        self._step, self._total, self._done, self._percent = f"{what} once …", total or 0, 0, 0
        self._write(f"{self._clear}{self._step}")

    def advance(self, count: int) -> None:
        self._done += count
        percent = 100 * self._done // self._total if self._total else 0
        if percent > self._percent and self._clear != "\n":
            self._percent = percent
            self._write(f"{self._clear}{self._step} {percent} %")

    def done(self) -> None:
        self._write(f"{self._clear}{self._what}")

    def note(self, line: str) -> None:
        print(f"{self._clear if self._shown else ''}{line}", file=self._stream, flush=True)

    def close(self) -> None:
        self._write(self._clear)

    def _write(self, text: str) -> None:
        if self._shown:
            print(text, end="", file=self._stream, flush=True)


class _LoadingStatus(NoProgress):
    """Tells the status line of a chat what its loading engine is doing."""

    def __init__(self, engine: "LoadingEngine"):
        self._engine = engine

    def start(self, what: str, total: int | None) -> None:
        self._engine.doing = "preparing, once"

    def done(self) -> None:
        self._engine.doing = "loading"
