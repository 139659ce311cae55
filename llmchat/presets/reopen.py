"""The options that a session stores, so that the same model opens again from any folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat.presets.load import absolute
from llmchat.presets.override import absolute_adapter
from llmchat.settings import OF_MODEL, Options

_CREDENTIALS = re.compile(r"(?<=//)[^/@]*@|[?#].*$")


def reopen_options(options: Options, own: Path | None = None) -> dict[str, Any]:
    """The options that select the model: absolute paths, and a server without credentials."""
    given: dict[str, Any] = {name: getattr(options, name) for name in OF_MODEL}
    places: Mapping[str, Any] = {
        "model": lambda name: absolute(name, own),
        "base": lambda name: absolute(name, own),
        "draft": lambda name: absolute(name, own),
        "adapter": absolute_adapter,
        "url": without_credentials,
    }
    return {
        name: places[name](value) if name in places else value
        for name, value in given.items()
        if value is not None
    }


def without_credentials(url: str) -> str:
    """The address without user, password and query, which could contain a key."""
    return _CREDENTIALS.sub("", url if "://" in url else f"http://{url}")
