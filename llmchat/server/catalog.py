"""The model names that requests may use, and what they mean.

Only models on this machine are served; nothing is downloaded. `base+adapter` is the base with a
live adapter, and shares its engine; `base+adapter:0.5` applies the adapter at half strength.
`role:NAME` is the model of a role.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from llmchat.engines.checkpoint_files import read_json
from llmchat.errors import LlmchatError, ModelNotFound
from llmchat.hub import find
from llmchat.models.engine_choice import named
from llmchat.models.library import pulled_repos
from llmchat.models.locate import pulled_presets, sources
from llmchat.presets import Preset, Source, preset_for
from llmchat.presets.override import split_scale
from llmchat.server.errors import UnknownModel
from llmchat.server.loaded_model import ModelSpec
from llmchat.server.roles import ServedRole, model_options
from llmchat.server.spec_builder import SpecBuilder
from llmchat.settings import Options, World, resolve

# How long names and specs are cached; later, models that were pulled or changed are noticed.
_CACHE_S = 10.0
# The number of cached names. Strengths of adapters make the number of possible names infinite.
_MAX_CACHED = 256
# The name of a preset, or a Hub repo with the name of one of its files.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96}(:[\w./-]{1,200})?)?")


class Catalog:
    """flags: command line options for all models; models: those of the command line, which are then
    the only ones served; adapters: folders by name; slots: see SpecBuilder; roles: by the names of
    their models."""

    def __init__(
        self,
        world: World,
        flags: Mapping[str, Any],
        models: Sequence[str],
        adapters: Mapping[str, Path],
        slots: int,
        roles: Mapping[str, ServedRole] | None = None,
    ):
        self.world = world
        self.models = _published_names(models)
        self._flags = dict(flags)
        self._adapters = dict(adapters)
        self._roles = dict(roles or {})
        self._builder = SpecBuilder(world, slots)
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, ModelSpec]] = {}
        self._opened: dict[str, ModelSpec] = {}
        self._names: tuple[float, list[str]] = (0.0, [])

    def names(self) -> list[str]:
        """All names that a request may use: first the bases, then bases with an adapter, then
        roles."""
        if time.monotonic() > self._names[0]:
            self._names = (time.monotonic() + _CACHE_S, self._list_names())
        return self._names[1]

    def _list_names(self) -> list[str]:
        bases = list(dict.fromkeys(self.models.values())) or self._pulled_names()
        with_adapter = [
            f"{base}+{name}"
            for name, folder in self._all_adapters().items()
            for base in bases
            if self._fits(folder, base)
        ]
        return [*bases, *with_adapter, *self._roles]

    def _pulled_names(self) -> list[str]:
        presets = [preset.name for preset, _ in pulled_presets(self.world)]
        repos = [
            str(receipt.source)
            for receipt in pulled_repos(self.world)
            if not _is_adapter(Path(receipt.path))
        ]
        return presets + repos

    def spec(self, name: str) -> ModelSpec:
        """Raises UnknownModel for a name that is not served."""
        return self._cached(name, lambda: self._spec(name))

    def spec_of_preset(self, preset: Preset, options: Options) -> tuple[str, ModelSpec]:
        """The spec of a preset that the server's own user has chosen, and its key for `opened`."""
        key = hashlib.sha256(msgspec.json.encode((preset, options))).hexdigest()
        self._opened[key] = self._cached(key, lambda: self._builder.build(preset, options))
        return key, self._opened[key]

    def opened(self, key: str) -> ModelSpec:
        """The spec for a key from `spec_of_preset`. Raises UnknownModel."""
        if key not in self._opened:
            raise UnknownModel("this model was not opened")
        return self._opened[key]

    def _cached(self, key: str, build: Callable[[], ModelSpec]) -> ModelSpec:
        """Reads files once for many requests, also if they come at the same time."""
        with self._lock:
            if len(self._cache) > _MAX_CACHED:
                self._cache.clear()
            until, spec = self._cache.get(key, (0.0, None))
            if spec is None or time.monotonic() > until:
                spec = build()
                self._cache[key] = (time.monotonic() + _CACHE_S, spec)
            return spec

    def _spec(self, name: str) -> ModelSpec:
        if name in self._roles:
            return self._spec_of_role(name)
        base, _, suffix = name.partition("+")
        options = self._options(base)
        spec = self._builder.build(preset_for(options, self.world.own_presets), options)
        if not suffix:
            return spec
        adapters = [split_scale(part) for part in suffix.split("+")]
        return replace(
            spec,
            preset=replace(spec.preset, name=name),
            adapters=tuple(adapters),
            folders=self._folders([adapter for adapter, _ in adapters]),
        )

    def _spec_of_role(self, name: str) -> ModelSpec:
        role = self._roles[name].role
        model = self._given_name(role.model or next(iter(self.models))) if self.models else ""
        options = model_options(self.world, role, self._flags, model)
        preset = preset_for(options, self.world.own_presets)
        self._check_pulled(named(preset, self.world), options.model)
        spec = self._builder.build(preset, options)
        return replace(spec, preset=replace(spec.preset, name=name))

    def _folders(self, names: Sequence[str]) -> dict[str, Path]:
        known = self._all_adapters()
        for name in names:
            if name not in known:
                available = ", ".join(known) or "none"
                raise UnknownModel(f"no adapter `{name[:100]}`; available: {available}")
        return {name: known[name] for name in names}

    def _options(self, name: str) -> Options:
        """Raises UnknownModel. Requests cannot name paths: only presets and pulled repos have
        names, apart from the models of the command line."""
        given = self._given_name(name)
        unknown = UnknownModel(f"the model `{name[:100]}` does not exist")
        is_path = given.endswith(".gguf") and ":" not in given
        if not self.models and (not _NAME.fullmatch(given) or is_path):
            raise unknown
        try:
            options = resolve(self.world, {**self._flags, "model": given}).options
            preset = preset_for(options, self.world.own_presets)
        except LlmchatError as error:
            raise unknown from error
        if not self.models and preset.base == Source("path", str(Path(given).resolve())):
            raise unknown
        self._check_pulled(named(preset, self.world), given)
        return options

    def _given_name(self, name: str) -> str:
        """The model's name on the command line. Raises UnknownModel if others are served."""
        if self.models and name not in {*self.models, *self.models.values()}:
            served = ", ".join(self.models.values())
            raise UnknownModel(f"the model `{name[:100]}` is not served; available: {served}")
        return next((given for given, published in self.models.items() if name == published), name)

    def _check_pulled(self, preset: Preset, name: str) -> None:
        try:
            for source in sources(preset):
                find(source, self.world)
        except ModelNotFound as error:
            hint = f"`llmchat pull {name}` downloads it"
            raise UnknownModel(f"the model `{name}` is not pulled: {hint}") from error

    def _all_adapters(self) -> dict[str, Path]:
        """Adapters by name: those of the command line, and pulled ones by the last part of their
        repo id."""
        pulled = {
            receipt.source.repo.rpartition("/")[2]: Path(receipt.path)
            for receipt in pulled_repos(self.world)
            if receipt.source and _is_adapter(Path(receipt.path))
        }
        return pulled | self._adapters

    def _fits(self, folder: Path, base: str) -> bool:
        """Whether an adapter is listed with a base: if it names the base's repo or folder, or if it
        was given on the command line."""
        if folder in self._adapters.values():
            return True
        config = read_json(folder / "adapter_config.json")
        try:
            model = self._given_name(base)
            options = resolve(self.world, {**self._flags, "model": model}).options
            preset = preset_for(options, self.world.own_presets)
        except LlmchatError:
            return False
        return preset.base.repo == str(config.get("base_model_name_or_path") or "")


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def _published_names(models: Sequence[str]) -> dict[str, str]:
    """The name of each model in the API: the last part of a path, unless another model has it."""
    names: dict[str, str] = {}
    for model in models:
        short = Path(model).name if Path(model).expanduser().exists() else model
        names[model] = short if short and short not in names.values() else model
    return names
