"""Plugins: installed packages that extend llmchat. This room finds and imports them, and does not
know what they extend.

A plugin is a distribution with entry points in the group `llmchat.plugins`. Each is called
`KIND.NAME`, such as `exporter.org`, and its object implements the hook KIND of `plugins.hooks`. So
the metadata tell what a plugin offers, and nothing is imported before somebody asks for it.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmchat.errors import LlmchatError, did_you_mean, first_line
from llmchat.plugins.installed import Offer, offers_on
from llmchat.plugins.printing import printing_to_stderr

if TYPE_CHECKING:
    from pluggy import PluginManager

__all__ = [
    "KINDS",
    "Offer",
    "PluginError",
    "check",
    "check_name",
    "configure",
    "fault",
    "fault_in",
    "faults",
    "find",
    "installed",
    "make",
    "names",
    "offers",
    "switched_off",
]

# The kinds of entry points, which are the hooks of `plugins.hooks`, and what each adds.
KINDS = {
    "command": "a command",
    "slash": "a slash command",
    "tools": "a group of tools",
    "engine": "an engine",
    "presets": "presets and prompt formats",
    "data": "a source of training data",
    "embedder": "an embedder",
    "exporter": "a format of exported chats",
}
# Which packages can be imported is a fact of the process, and so is whether they count.
_switched_off = False
_HINT = "LLMCHAT_TRACEBACK=1 shows where; LLMCHAT_NO_PLUGINS=1 runs without plugins"


class PluginError(LlmchatError):
    """A plugin is broken. The message names its package."""


def configure(env: Mapping[str, str]) -> None:
    """Switch plugins off in this process if LLMCHAT_NO_PLUGINS is set, and on otherwise."""
    global _switched_off
    _switched_off = bool(env.get("LLMCHAT_NO_PLUGINS"))


def switched_off() -> bool:
    return _switched_off


def installed() -> tuple[Offer, ...]:
    """All that installed plugins add, whether they are switched off or not."""
    return _installed(tuple(sys.path))


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> tuple[Offer, ...]:
    return tuple(offers_on(path))


def offers(kind: str) -> list[Offer]:
    """The offers of a kind, by name. Of two with the same name, the first by package name."""
    found: dict[str, Offer] = {}
    for offer in () if _switched_off else installed():
        if offer.kind == kind and offer.name:
            found.setdefault(offer.name, offer)
    return list(found.values())


def names(kind: str) -> list[str]:
    """The names that plugins add of a kind."""
    return [offer.name for offer in offers(kind)]


def find(kind: str, name: str) -> Offer | None:
    """The offer of this kind and name, if a plugin has it."""
    return next((offer for offer in offers(kind) if offer.name == name), None)


def make(offer: Offer, **arguments: Any) -> Any:
    """What the hook of an offer returns. Raises PluginError for whatever goes wrong in it."""
    hook = getattr(_only(offer).hook, offer.kind)
    with faults(offer):
        made = hook(name=offer.name, **arguments)
    if made is None:
        raise fault(offer, f"its hook `{offer.kind}` returned nothing for `{offer.name}`")
    return made


def check(offer: Offer) -> None:
    """Import what an offer names. Raises PluginError if it does not implement its hook."""
    check_name(offer)
    _only(offer)


def check_name(offer: Offer) -> None:
    """Raise PluginError for an entry point that is not called `KIND.NAME`. Imports nothing."""
    if offer.kind not in KINDS:
        hint = did_you_mean(offer.kind, tuple(KINDS)) or f"the kinds are {', '.join(KINDS)}"
        raise fault(offer, f"unknown kind of plugin `{offer.kind}`", hint)
    if not offer.name:
        raise fault(offer, "its entry point has no name", f"name it {offer.kind}.NAME")


def _only(offer: Offer) -> "PluginManager":
    """A manager of the object of one offer, so that a call reaches no other plugin."""
    from pluggy import PluginManager

    from llmchat.plugins import hooks

    manager = PluginManager("llmchat")
    manager.add_hookspecs(hooks)
    with faults(offer):
        manager.register(_imported(offer))
        manager.check_pending()
    if not getattr(manager.hook, offer.kind).get_hookimpls():
        raise fault(offer, f"{offer.target} does not implement the hook `{offer.kind}`")
    return manager


def _imported(offer: Offer) -> Any:
    path = filter(None, offer.target.partition(":")[2].strip().split("."))
    return reduce(getattr, path, import_module(offer.module))


@contextmanager
def faults(offer: Offer) -> Iterator[None]:
    """Turn any exception of a plugin in the block into a one-line PluginError that names it.

    What the plugin prints in the block goes to stderr.
    """
    try:
        with printing_to_stderr():
            yield
    except (LlmchatError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise fault(offer, _in_words(error)) from error


def fault_in(error: BaseException) -> PluginError | None:
    """The fault of the plugin through whose code an exception came; None if it came through none.

    With several, the innermost one.
    """
    plugins = {offer.module.partition(".")[0]: offer.package for offer in installed()}
    trace, found = error.__traceback__, None
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        found = plugins.get(module.partition(".")[0]) or found
        trace = trace.tb_next
    return PluginError(f"the plugin `{found}` failed: {_in_words(error)}", _HINT) if found else None


def fault(offer: Offer, cause: str, hint: str = "") -> PluginError:
    """The error of a plugin, in one line."""
    line = f"the plugin `{offer.package}` does not work ({offer}): {cause}"
    return PluginError(line, hint or _HINT)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
