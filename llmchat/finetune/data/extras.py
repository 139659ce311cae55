"""Libraries that only some data work needs; they come with the extra `finetune`."""

import importlib
import importlib.util
from typing import Any

from llmchat.errors import UsageError


def need(library: str, purpose: str) -> Any:
    """The module `library`. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UsageError(
            f"{purpose} needs the library `{library.partition('.')[0]}`",
            "pip install 'llmchat[finetune]'",
        ) from error


def has(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
