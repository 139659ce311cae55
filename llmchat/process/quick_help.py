"""Import Typer's pages of --help in half the time.

`typer.rich_utils` imports rich's Markdown, with markdown-it, and its tracebacks. Both are for
settings of Typer that llmchat does not use, and take a fifth of `llmchat --help`.
"""

import sys
from types import ModuleType

_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def import_help() -> None:
    """Import `typer.rich_utils` with empty modules in the place of those that it does not use.

    They are removed again, so that every other import finds the real ones.
    """
    if "typer.rich_utils" in sys.modules:
        return
    missing = {name: unused for name, unused in _UNUSED.items() if name not in sys.modules}
    for name, unused in missing.items():
        empty = ModuleType(name)
        setattr(empty, unused, type(unused, (), {}))
        sys.modules[name] = empty
    try:
        import typer.rich_utils  # noqa: F401
    finally:
        for name in missing:
            del sys.modules[name]
