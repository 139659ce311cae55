"""A store as ollama makes it, written by a test."""

import hashlib
import json
from pathlib import Path
from typing import Any

KIND = "application/vnd.ollama.image."


class OllamaStore:
    """A store of ollama."""

    def __init__(self, root: Path):
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def add(self, name: str, **layers: Any) -> Path:
        """Add a model `HOST/NAMESPACE/NAME/TAG` with layers of bytes, text or JSON."""
        found = [self._layer(kind, value) for kind, value in layers.items()]
        manifest = self.root / "manifests" / name
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"schemaVersion": 2, "layers": found}))
        return manifest

    def _layer(self, kind: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, bytes):
            value = (value if isinstance(value, str) else json.dumps(value)).encode()
        path = self.blob(value)
        path.write_bytes(value)
        digest = path.name.replace("-", ":")
        return {"mediaType": KIND + kind, "digest": digest, "size": len(value)}

    def blob(self, content: bytes) -> Path:
        """Where a content is stored."""
        return self.root / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"
