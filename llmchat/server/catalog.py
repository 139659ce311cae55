"""What a model name in a request means, and which names there are. Only what is on this machine is served; nothing is downloaded.

`base+adapter` is the base with a live adapter: all of them share one engine. `base+adapter:0.5` puts it on half as strongly.
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

from llmchat import memory_estimate
from llmchat.engines import Engine
from llmchat.engines.checkpoint_files import read_json
from llmchat.errors import LlmchatError, ModelNotFound
from llmchat.hub import find, inspect_folder
from llmchat.models.library import pulled_repos
from llmchat.models.loading import load
from llmchat.models.locate import Model, locate, provenance, pulled_presets, sources, title
from llmchat.presets import Preset, Source, preset_for
from llmchat.presets.override import split_scale
from llmchat.server.errors import UnknownModel
from llmchat.server.loaded_model import ModelSpec
from llmchat.settings import Options, World, resolve

# Tokens that are reckoned with for each answer beside the first, which may fill its window.
_TOKENS_A_SLOT = 1024
# How long it may take until a model that was pulled or changed meanwhile is seen.
_REMEMBER_S = 10.0
# Names that are remembered so: adapters with a strength make as many as anybody likes.
_REMEMBERED = 256
# A preset, or a repo of the Hub.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")


class Catalog:
    """flags: the options of the command line, for every model. models: those that were named there; then nothing else is served.

    adapters: folders by the names they are asked for.
    """

    def __init__(
        self,
        world: World,
        flags: Mapping[str, Any],
        models: Sequence[str],
        adapters: Mapping[str, Path],
        slots: int,
    ):
        self.world = world
        self.models = _published(models)
        self._flags = dict(flags)
        self._adapters = dict(adapters)
        self._slots = slots
        self._specs: dict[str, tuple[float, ModelSpec]] = {}
        self._reading = threading.Lock()
        self._chosen: dict[str, ModelSpec] = {}
        self._listed: tuple[float, list[str]] = (0.0, [])
        self._keys: dict[str, Mapping[str, Any]] = {}

    def names(self) -> list[str]:
        """Every name that a request may give, in order: bases, then bases with an adapter."""
        if time.monotonic() > self._listed[0]:
            self._listed = (time.monotonic() + _REMEMBER_S, self._names())
        return self._listed[1]

    def _names(self) -> list[str]:
        bases = list(dict.fromkeys(self.models.values())) or [
            *(preset.name for preset, _ in pulled_presets(self.world)),
            *(
                str(receipt.source)
                for receipt in pulled_repos(self.world)
                if not _is_adapter(Path(receipt.path))
            ),
        ]
        live = [
            f"{base}+{name}"
            for name, folder in self._all_adapters().items()
            for base in bases
            if self._fits(folder, base)
        ]
        return bases + live

    def spec(self, name: str) -> ModelSpec:
        """Raises UnknownModel for a name that is not served."""
        return self._remembered(name, lambda: self._spec(name))

    def spec_of_preset(self, preset: Preset, options: Options) -> tuple[str, ModelSpec]:
        """The same for a preset that the user who runs the server has chosen, and a key for `known`. options: as `models.load` takes them."""
        key = hashlib.sha256(msgspec.json.encode((preset, options))).hexdigest()
        self._chosen[key] = self._remembered(key, lambda: self._spec_of_preset(preset, options))
        return key, self._chosen[key]

    def known(self, key: str) -> ModelSpec:
        """The spec that `spec_of_preset` gave this key. Raises UnknownModel."""
        if key not in self._chosen:
            raise UnknownModel("this model was not opened")
        return self._chosen[key]

    def _spec(self, name: str) -> ModelSpec:
        base, _, adapter = name.partition("+")
        options = self._options(base)
        spec = self._spec_of_preset(preset_for(options, self.world.own_presets), options)
        if not adapter:
            return spec
        known = self._all_adapters()
        chosen, folders = [], {}
        for part in adapter.split("+"):
            own, scale = split_scale(part)
            if own not in known:
                raise UnknownModel(
                    f"there is no adapter `{own[:100]}`; there are {', '.join(known) or 'none'}"
                )
            chosen.append((own, scale))
            folders[own] = known[own]
        return replace(
            spec,
            preset=replace(spec.preset, name=name),
            adapters=tuple(chosen),
            folders=folders,
        )

    def _spec_of_preset(self, preset: Preset, options: Options) -> ModelSpec:
        if embedder := self._embedder(preset):
            return self._embedding_spec(preset, embedder, options)
        model = locate(preset, self.world)
        made_by = provenance(model)
        # A format is not loaded: the same engine serves all of them.
        loaded = {
            **made_by,
            "format": "",
            "device": options.device,
            "code": options.trust_remote_code,
        }
        key = self._key(f"{title(model.preset)} {model.preset.weights}", loaded)
        size, context = self._size(model), self._context(model)
        return ModelSpec(
            key,
            model.preset,
            lambda: load(model, options),
            size,
            (),
            made_by=made_by,
            context=context,
        )

    def _embedder(self, preset: Preset) -> Path | None:
        """The folder of a model that embeds text, as sentence-transformers saves it; None for any other model."""
        if preset.engine != "transformers":
            return None
        folder = find(preset.base, self.world).path
        return folder if (folder / "modules.json").is_file() else None

    def _embedding_spec(self, preset: Preset, folder: Path, options: Options) -> ModelSpec:
        def load_embedder() -> Engine:
            from llmchat.engines.transformers.modules.embedding import EmbeddingEngine

            return EmbeddingEngine(folder, options.device, preset.name)

        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return ModelSpec(
            self._key(f"{preset.name} fp32", {"folder": str(folder), "device": options.device}),
            preset,
            load_embedder,
            size,
        )

    def _key(self, label: str, loaded: Mapping[str, Any]) -> str:
        """A name for `ps`, of its own for whatever is loaded."""
        if self._keys.setdefault(label, loaded) != loaded:
            label = (
                f"{label} #{hashlib.sha256(repr(sorted(loaded.items())).encode()).hexdigest()[:6]}"
            )
            self._keys[label] = loaded
        return label

    def _remembered(self, asked: str, make: Callable[[], ModelSpec]) -> ModelSpec:
        """Files and templates are not read anew for every request, nor by several at once."""
        with self._reading:
            if len(self._specs) > _REMEMBERED:
                self._specs.clear()
            until, spec = self._specs.get(asked, (0.0, None))
            if spec is None or time.monotonic() > until:
                spec = make()
                self._specs[asked] = (time.monotonic() + _REMEMBER_S, spec)
            return spec

    def _options(self, name: str) -> Options:
        """Raises UnknownModel. A path from outside is never opened: only presets and repos that were pulled have names."""
        if self.models and name not in {*self.models, *self.models.values()}:
            raise UnknownModel(
                f"the model `{name[:100]}` is not served; there is {', '.join(self.models.values())}"
            )
        name = next((given for given, published in self.models.items() if name == published), name)
        unknown = UnknownModel(f"the model `{name[:100]}` does not exist")
        if not self.models and (not _NAME.fullmatch(name) or name.endswith(".gguf")):
            raise unknown
        try:
            options = resolve(self.world, {**self._flags, "model": name}).options
            preset = preset_for(options, self.world.own_presets)
        except LlmchatError as error:
            raise unknown from error
        if not self.models and preset.base == Source("path", str(Path(name).resolve())):
            raise unknown
        try:
            for source in sources(preset):
                find(source, self.world)
        except ModelNotFound as error:
            raise UnknownModel(
                f"the model `{name}` is not pulled: `llmchat pull {name}` downloads it"
            ) from error
        return options

    def _size(self, model: Model) -> int:
        """Bytes: weights, and keys and values of a whole window and of a share for each other slot."""
        if model.base is None:
            return 0
        inspection = inspect_folder(model.base)
        window = (
            model.preset.context.tokens or memory_estimate.own_context(inspection.config) or 2048
        )
        tokens = window + (self._slots - 1) * min(_TOKENS_A_SLOT, window)
        return memory_estimate.weights(
            inspection.shapes, model.preset.weights
        ) + memory_estimate.kv_bytes(inspection.config, tokens)

    def _context(self, model: Model) -> int:
        return (
            (memory_estimate.own_context(inspect_folder(model.base).config) or 2048)
            if model.base
            else 0
        )

    def _all_adapters(self) -> dict[str, Path]:
        """Adapters by name: those of the command line, and those that were pulled by themselves, by the last part of their id."""
        pulled = {
            receipt.source.repo.rpartition("/")[2]: Path(receipt.path)
            for receipt in pulled_repos(self.world)
            if receipt.source and _is_adapter(Path(receipt.path))
        }
        return pulled | self._adapters

    def _fits(self, folder: Path, base: str) -> bool:
        """Whether to list the pair: an adapter names its base, which is a repo or the folder that a preset is in."""
        if folder in self._adapters.values():
            return True
        made_for = str(
            read_json(folder / "adapter_config.json").get("base_model_name_or_path") or ""
        )
        try:
            given = next(
                (given for given, published in self.models.items() if base == published), base
            )
            return (
                preset_for(
                    resolve(self.world, {**self._flags, "model": given}).options,
                    self.world.own_presets,
                ).base.repo
                == made_for
            )
        except LlmchatError:
            return False


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def _published(models: Sequence[str]) -> dict[str, str]:
    """The name under which each model is served: of a path its last part, as far as no other model has it already."""
    names: dict[str, str] = {}
    for model in models:
        short = Path(model).name if Path(model).expanduser().exists() else model
        names[model] = short if short and short not in names.values() else model
    return names
