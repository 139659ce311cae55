"""The KV cache of a session on disk, so that `--continue` needs no prefill of the conversation.

On a CPU, reading the file is tens of times faster than a prefill (docs/log.md). The files reveal
the chat, so only their owner may read them. A file is removed with its session, and the oldest
files are removed when all of them grow too large.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.engines.capabilities import SavesCache, unwrap
from llmchat.settings import World, private_folder

if TYPE_CHECKING:
    from llmchat.engines import Engine

# A prefill of fewer tokens is as fast as reading the file.
SHORTEST = 128
# Bytes of all files together.
LIMIT = 2_000_000_000


def keep(engine: "Engine", session: str | None, made_by: dict[str, Any], world: World) -> None:
    """Write the engine's KV cache for this session, if the engine can save it.

    An error of the disk is ignored: the conversation is prefilled again then.
    """
    engine = unwrap(engine)
    if not session or not isinstance(engine, SavesCache) or engine.held_tokens < SHORTEST:
        return
    path = _path(session, world)
    try:
        private_folder(path.parent)
        engine.save_cache(path, _key(made_by))
        _trim(path.parent)
    except OSError:
        path.unlink(missing_ok=True)


def restore(engine: "Engine", session: str, made_by: dict[str, Any], world: World) -> int:
    """Load the KV cache of a session into the engine; returns the number of its tokens."""
    engine, path = unwrap(engine), _path(session, world)
    if not isinstance(engine, SavesCache) or not path.exists():
        return 0
    return engine.load_cache(path, _key(made_by))


def forget(session: str, world: World) -> None:
    """Remove the file of a session."""
    _path(session, world).unlink(missing_ok=True)


def _path(session: str, world: World) -> Path:
    return world.cache / "kv" / f"{session}.safetensors"


def _key(made_by: dict[str, Any]) -> str:
    """A key of the model: a KV cache is valid only for the weights that computed it."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def _trim(folder: Path) -> None:
    """Remove the oldest files until the rest is below the limit."""
    files = sorted(
        folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)
