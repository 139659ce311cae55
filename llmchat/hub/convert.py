"""Convert GGUF files and pickles to safetensors, once, during a pull.

No code of a checkpoint is run.
"""

import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, Mismatch
from llmchat.hub.safe_copy import check_inside, copy_beside
from llmchat.parse_guard import reason

_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".md", ".py")
_SHARD_BYTES = 5_000_000_000


def gguf_to_folder(gguf: Path, target: Path) -> str:
    """Dequantise a GGUF file to bf16 safetensors with config and tokenizer; returns a note."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16, **_dequantise()
            )
        # transformers raises whatever its parts do.
        except Exception as error:
            raise Mismatch(
                f"{gguf.name} cannot be converted to a checkpoint: {reason(error)}",
                "`--engine gguf` runs the file in llama.cpp, if that knows its architecture",
            ) from error
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return f"{gguf.name} dequantised to bf16"


def tokenizer_by_transformers(gguf: Path, target: Path) -> None:
    """Write the tokenizer of a GGUF file as transformers converts it."""
    from transformers import AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        except Exception as error:
            raise Mismatch(
                f"the tokenizer of {gguf.name} is not known: {reason(error)}",
                "`--engine gguf` runs the file in llama.cpp",
            ) from error
        tokenizer.save_pretrained(target)


def pickles_to_folder(source: Path, target: Path, adapter: bool) -> str:
    """Convert the pickles of a checkpoint, read with weights_only; copy its other files."""
    names = _pickles(source, adapter)
    copied = [path for path in sorted(source.iterdir()) if _goes_along(path)]
    for path in copied:
        check_inside(path)
    stem = "adapter_model" if adapter else "model"
    index: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        tensors = _unpickle(source / name)
        shard = f"-{number:05}-of-{len(names):05}" if len(names) > 1 else ""
        file = f"{stem}{shard}.safetensors"
        _save(tensors, target / file)
        index |= dict.fromkeys(tensors, file)
    if len(names) > 1:
        (target / f"{stem}.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index})
        )
    for path in copied:
        copy_beside(path, target)
    return f"{', '.join(names)} converted to safetensors"


def _goes_along(path: Path) -> bool:
    """Whether a file is copied: config, tokenizer, template, licence; no hidden files (.env)."""
    if (
        not path.is_file()
        or path.name.startswith(".")
        or path.name.endswith((".bin", ".bin.index.json", ".safetensors"))
    ):
        return False
    return path.suffix in _BESIDE or path.name.startswith(("LICENSE", "USE_POLICY", "NOTICE"))


def has_only_pickles(folder: Path, adapter: bool) -> bool:
    stem = "adapter_model" if adapter else "model"
    return not any(folder.glob(f"{stem}*.safetensors")) and bool(_pickles(folder, adapter))


def _pickles(folder: Path, adapter: bool) -> list[str]:
    return sorted(
        path.name for path in folder.glob("adapter_model.bin" if adapter else "pytorch_model*.bin")
    )


def _unpickle(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise IntegrityError(
            f"{path.name} holds more than tensors and was not opened: it could run code",
            "use a revision with safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise IntegrityError(
            f"{path.name} cannot be read: {str(error).splitlines()[0]}",
            "`llmchat pull` fetches it again",
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise IntegrityError(f"{path.name} is not a table of tensors")
    return state


def _save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    # Tensors that share memory (tied embeddings) are written twice: safetensors cannot share.
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt"},
    )


def _dequantise() -> dict[str, Any]:
    """The option that makes transformers dequantise a GGUF; releases without it always do."""
    try:
        from transformers.utils.quantization_config import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the bars and notes of transformers, because a pull shows its own progress."""
    import warnings

    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
