"""Finds and opens the vocabulary in a checkpoint's files.

A new kind of tokenizer is one module and one line in `open_vocabulary`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.engines.checkpoint_files import read_json, special_names
from llmchat.engines.tokenizer import chatglm, sentencepiece, tekken, tiktoken_file
from llmchat.engines.tokenizer.fast import FastVocabulary
from llmchat.engines.tokenizer.rwkv_world import WorldVocabulary
from llmchat.engines.tokenizer.vocabulary import Vocabulary
from llmchat.errors import IntegrityError
from llmchat.parse_guard import reading, silenced

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_vocabulary(folder: Path) -> Vocabulary:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if path.exists():
        with reading(path), silenced():
            tokenizer = Tokenizer.from_file(str(path))
            # Some faults show only in use.
            tokenizer.encode("a b", add_special_tokens=True)
            return FastVocabulary(tokenizer)
    world = sorted(folder.glob("rwkv_vocab_*.txt"))
    if world:
        return WorldVocabulary(world[-1])
    if (folder / tekken.FILE).exists():
        return FastVocabulary(tekken.read_tekken(folder / tekken.FILE))
    if (folder / chatglm.FILE).exists():
        return chatglm.read_ice_text(folder / chatglm.FILE)
    pieces = next((folder / name for name in sentencepiece.FILES if (folder / name).exists()), None)
    if pieces and tiktoken_file.is_tiktoken(pieces):
        return FastVocabulary(_from_ranks(pieces))
    return FastVocabulary(_from_pieces(pieces) if pieces else _convert_tokenizer(folder))


def _from_ranks(path: Path) -> "Tokenizer":
    """The tokenizer of GLM-4's own file, whose special tokens are in another one."""
    listed = read_json(path.parent / "tokenizer_config.json").get("added_tokens_decoder", {})
    specials = {str(token["content"]): int(number) for number, token in listed.items()}
    return tiktoken_file.read_tiktoken(path, specials)


def _from_pieces(path: Path) -> "Tokenizer":
    """The tokenizer of a sentencepiece file, completed from the files in its folder: added tokens,
    and the tokens that it puts around a text.
    """
    from tokenizers import processors

    settings, config = (
        read_json(path.parent / "tokenizer_config.json"),
        read_json(path.parent / "config.json"),
    )
    added: dict[str, int] = read_json(path.parent / "added_tokens.json")
    for number, token in settings.get("added_tokens_decoder", {}).items():
        added[token["content"]] = int(number)
    model = sentencepiece.read_model(path)
    size = len(model.pieces)
    own = {text: number for text, number in added.items() if number >= size}
    if config.get("model_type") in ("t5", "mt5", "umt5"):
        # T5's sentinels follow its pieces, the last one first, and no file names them.
        extra = int(settings.get("extra_ids", 100))
        own |= {f"<extra_id_{extra - 1 - index}>": size + index for index in range(extra)}
    if chatglm.is_later(config):
        own |= {name: size + index for index, name in enumerate(chatglm.LATER_SPECIALS)}
    special = (
        frozenset(special_names(path.parent).values())
        | _listed_specials(path.parent)
        | {name for name in own if "<extra_id_" in name or name in chatglm.LATER_SPECIALS}
    )
    tokenizer = sentencepiece.make_tokenizer(model, own, special)
    reads_apart = bool(config.get("is_encoder_decoder"))
    mark = "</s>" if reads_apart else special_names(path.parent).get("bos_token") or "<s>"
    number = tokenizer.token_to_id(mark)
    if number is not None and (reads_apart or settings.get("add_bos_token", True)):
        template = f"$A {mark}" if reads_apart else f"{mark} $A"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(mark, number)]
        )
    return tokenizer


def _listed_specials(folder: Path) -> frozenset[str]:
    """Special tokens that no `…_token` entry names."""
    settings = read_json(folder / "special_tokens_map.json") | read_json(
        folder / "tokenizer_config.json"
    )
    listed = settings.get("additional_special_tokens") or []
    marked = [
        token for token in settings.get("added_tokens_decoder", {}).values() if token.get("special")
    ]
    return frozenset(
        token["content"] if isinstance(token, dict) else token for token in [*listed, *marked]
    )


def _convert_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer of an older checkpoint (vocab.json, merges.txt), converted by transformers."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise IntegrityError(
            f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0]}"
        ) from error
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
