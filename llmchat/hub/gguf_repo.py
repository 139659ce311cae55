"""The GGUF files of a repo: grouped into variants, found by name, and one proposed.

A variant is what a model is stored as: one file, or its parts (`…-00001-of-00003.gguf`). It is
called by its quantisation where that is unique in the repo, otherwise by its file.
"""

import re
from collections.abc import Callable, Collection, Iterable
from math import log2
from pathlib import PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import LlmchatError, Mismatch, ModelNotFound, UsageError, did_you_mean
from llmchat.gguf_file import PART
from llmchat.hub.cache import RemoteFile
from llmchat.presets.model_names import QUANTISATION, canonical_variant
from llmchat.presets.types import Source

# Files that accompany a model: the eyes of a multimodal one, the statistics of a quantisation.
_NO_MODEL = re.compile(r"mmproj|imatrix", re.I)
_OTHER_WEIGHTS = re.compile(r"(?:model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
# What is proposed where it is there, and its bits a weight. Four bits cost a small model too much.
_SMALL = 1e9
_FOR_SMALL, _FOR_OTHERS = ("Q8_0", 8.5), ("Q4_K_M", 4.85)
# Quantisations that no kernel of ours reads as they are.
_COARSE = re.compile(r"(?:UD-)?(?:IQ[123]|TQ|NVFP4)")


class Variant(Struct, frozen=True):
    """One way in which a repo has its model. files: in the order of their parts."""

    name: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def is_called(name: str, variant: str, files: Iterable[str]) -> bool:
    """Whether a name is that of a variant or of one of its files."""
    known = {variant, *(known for file in files for known in _names_of(file))}
    return name.casefold() in {one.casefold() for one in known}


def is_gguf_repo(source: Source, files: Collection[RemoteFile]) -> bool:
    """Whether a source means GGUF files of a repo: it names one, or the repo has no others."""
    if source.files:
        return False
    names = [file.name for file in files]
    others = any(_OTHER_WEIGHTS.fullmatch(name) for name in names) or "adapter_config.json" in names
    return bool(source.variant) or (not others and any(map(_is_model, names)))


def variants(files: Iterable[RemoteFile]) -> tuple[Variant, ...]:
    """Every variant of a repo, the smallest first."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        if _is_model(file.name):
            groups.setdefault(whole_name(file.name), []).append(file)
    labels = [_label(whole) for whole in groups]
    found = [
        Variant(
            label if label and labels.count(label) == 1 else PurePosixPath(whole).name,
            tuple(sorted(parts, key=lambda part: part.name)),
        )
        for (whole, parts), label in zip(groups.items(), labels, strict=True)
    ]
    return tuple(sorted(found, key=lambda variant: (variant.size, variant.name)))


def with_variant(source: Source, files: Collection[RemoteFile]) -> Source:
    """The source with the name that its variant has here; any other source as it is.

    Raises UsageError where a repo has several and the source names none.
    """
    if not is_gguf_repo(source, files):
        return source
    return replace(source, variant=choose_variant(source, variants(files)).name)


def choose_variant(source: Source, known: tuple[Variant, ...]) -> Variant:
    """The variant that a source names, or the only one.

    Raises ModelNotFound for another name or missing parts.
    """
    if not source.variant and len(known) == 1:
        return _complete(source, known[0])
    wanted = canonical_variant(source.variant)
    named = [variant for variant in known if _answers(variant, wanted)] or [
        variant for variant in known if variant.name.upper().endswith(f"-{wanted.upper()}")
    ]
    if len(named) != 1:
        raise _unknown(source, known)
    return _complete(source, named[0])


def propose(
    known: tuple[Variant, ...], parameters: float, fits: Callable[[Variant], bool]
) -> Variant | None:
    """The variant to recommend among those that fit; None if none does.

    It is Q4_K_M, or Q8_0 for a model of less than a billion parameters, or else the one whose size
    is nearest.
    """
    favourite, bits = _FOR_SMALL if parameters < _SMALL else _FOR_OTHERS
    target = next(
        (variant.size for variant in known if variant.name == favourite), parameters * bits / 8
    )

    def distance(variant: Variant) -> tuple[bool, float]:
        return bool(_COARSE.match(variant.name)), abs(log2(max(1, variant.size) / max(1, target)))

    return min(filter(fits, known), key=distance, default=None)


def _answers(variant: Variant, name: str) -> bool:
    return is_called(name, variant.name, (file.name for file in variant.files))


def _unknown(source: Source, known: tuple[Variant, ...]) -> LlmchatError:
    names = [variant.name for variant in known]
    if not names:
        return Mismatch(f"{source.repo} has no GGUF files", f"leave `:{source.variant}` out")
    if not source.variant:
        name = f"{source.repo}:{names[0]}"
        return UsageError(
            f"{source.repo} has several models: {', '.join(names)}", f"name one: {name}"
        )
    close = did_you_mean(source.variant, names)
    return ModelNotFound(
        f"{source.repo} has no `{source.variant}`", close or f"it has {', '.join(names)}"
    )


def _complete(source: Source, variant: Variant) -> Variant:
    """The variant, if it has all of its parts."""
    match = PART.fullmatch(variant.files[0].name)
    if match and len(variant.files) != int(match["count"]):
        raise ModelNotFound(
            f"{source} is incomplete: the repo has {len(variant.files)} of {int(match['count'])}"
            " parts",
            "use another quantisation",
        )
    return variant


def _is_model(name: str) -> bool:
    return name.endswith(".gguf") and not _NO_MODEL.search(PurePosixPath(name).name)


def whole_name(name: str) -> str:
    """The name of a file without the number of its part."""
    match = PART.fullmatch(name)
    return f"{match['stem']}.gguf" if match else name


def _names_of(name: str) -> set[str]:
    """The names under which a file is found: with and without folder, part and ending."""
    names = {name, whole_name(name)}
    names |= {PurePosixPath(one).name for one in names}
    return names | {one.removesuffix(".gguf") for one in names}


def _label(whole: str) -> str:
    """The quantisation in a file's name, or in that of its folder."""
    path = PurePosixPath(whole)
    for text in (path.stem, path.parent.name):
        if found := QUANTISATION.findall(text):
            return str(found[-1]).upper()
    return ""
