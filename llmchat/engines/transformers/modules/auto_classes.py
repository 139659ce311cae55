"""Loading with transformers' own classes: settings, the class for an architecture, whole models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmchat.engines.transformers.checkpoint_names import is_renamed
from llmchat.errors import Mismatch
from llmchat.quantisation import declared, is_int8


def load_whole(
    folder: Path, config: dict[str, Any], dtype: torch.dtype, trust: bool = False
) -> Any:
    """The model as transformers itself loads it, all in memory.

    Raises Mismatch for weights in few bits: its readers of those need other programs, or a GPU.
    """
    if declared(config) and not is_int8(config):
        raise Mismatch(
            f"{folder.name} is quantised, and transformers would have to assemble its weights",
            "use the model in 16 bits, or as GGUF",
        )
    with quiet():
        settings = settings_of(folder, config, trust)
        model, found = auto_class(config).from_pretrained(
            folder, config=settings, dtype=dtype, trust_remote_code=trust, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):
        raise Mismatch(f"{folder.name} is incomplete: `{missing[0]}` is in none of its files")
    return model


def settings_of(folder: Path, config: dict[str, Any], trust: bool) -> Any:
    from transformers import AutoConfig

    if is_renamed(config):
        # The first files of Falcon name a class that transformers does not have.
        return AutoConfig.for_model(**config)
    return AutoConfig.from_pretrained(folder, trust_remote_code=trust)


def language_part(settings: Any) -> Any:
    """The settings of the language model inside a multimodal one, where it can be had alone."""
    from transformers import AutoModelForCausalLM

    text = getattr(settings, "text_config", None)
    return (
        text if text is not None and type(text) in AutoModelForCausalLM._model_mapping else settings
    )


def auto_class(config: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else AutoModelForCausalLM


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and log messages of transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
