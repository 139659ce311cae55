"""What a model had read at the end of a session, on disk: `--continue` goes on from there instead of reading the conversation again.

On a CPU reading a file is tens of times faster than a prefill (docs/log.md). The files hold what was said, so that only their owner may read them;
they go with their session, and the oldest go when all together grow too large.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.engines.capabilities import SavesCache, unwrap
from llmchat.settings import World, private_folder

if TYPE_CHECKING:
    from llmchat.engines import Engine

# A shorter text is read again as fast as it is found.
SHORTEST = 128
# Bytes of all files together.
LIMIT = 2_000_000_000


def keep(engine: "Engine", session: str | None, made_by: dict[str, Any], world: World) -> None:
    """Keep what the engine has read for this session, where it can be kept. A full disk loses nothing but the time to read it again."""
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
    """Let the engine go on from what was kept of a session; returns the tokens that it need not read again."""
    engine, path = unwrap(engine), _path(session, world)
    if not isinstance(engine, SavesCache) or not path.exists():
        return 0
    return engine.load_cache(path, _key(made_by))


def forget(session: str, world: World) -> None:
    """Remove what was kept of a session."""
    _path(session, world).unlink(missing_ok=True)


def _path(session: str, world: World) -> Path:
    return world.cache / "kv" / f"{session}.safetensors"


def _key(made_by: dict[str, Any]) -> str:
    """Keys and values fit only the very weights that made them."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def _trim(folder: Path) -> None:
    """Remove the oldest files until the rest is within the limit."""
    files = sorted(
        folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)
