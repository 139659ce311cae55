"""A checkpoint with its adapters merged, as a GGUF file for llama.cpp and what is built on it.

Before a weight is read, the plan of what the file will say is compared with that of the checkpoint.
So a model that GGUF cannot express is refused here, and does not answer wrongly elsewhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llmchat.engines.checkpoint_files import GGUF_POINTER, read_json
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.tokenizer.gguf_facts import facts_of as tokenizer_facts
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.families import language_model, plan_of, viewed
from llmchat.engines.transformers.families.check import bind
from llmchat.engines.transformers.families.differences import differences
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised import gguf_writing
from llmchat.engines.transformers.quantised.calibration import importance
from llmchat.engines.transformers.tied_heads import with_ties
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgufHeader, TensorInfo, read_header
from llmchat.gguf_file.architectures.row import Shapes
from llmchat.gguf_file.config import config_of
from llmchat.gguf_file.facts import FileFacts, architecture_of, facts_of
from llmchat.gguf_file.llama_cpp import deviation, refusal
from llmchat.gguf_file.mixes import MIXES
from llmchat.gguf_file.types import file_type_of, type_named
from llmchat.output.formatting import counted
from llmchat.output.progress import NoProgress, Progress
from llmchat.parse_guard import reading

_WINDOW = ".window: "
# The version of the block types, as in llama.cpp.
_QUANTISATION = 2


class Export:
    """A model to be written. general: name, licence and chat template of the file, by their keys.
    size: bytes of its weights. notes: what the file leaves out.

    Raises Mismatch for a model that a GGUF file cannot express.
    """

    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path],
        scale: float,
        kind: str,
        general: Mapping[str, str],
    ):
        self.notes: tuple[str, ...] = ()
        self._base = base
        with reading(f"the model in {base.name}"):
            self._open(base, adapters, scale, kind)
            self._facts = self._all_facts(base, kind, general)
        self.size = sum(target.size for target in self._targets)

    def write(self, file: Path, progress: Progress | None = None) -> None:
        """Write the file, tensor by tensor."""
        shown = progress or NoProgress()
        counts = gguf_writing.write(
            file, self._facts, self._targets, self._made.factors, self._tensors, shown.advance,
            lambda: self._importance(shown),
        )  # fmt: skip
        if counts.quantised:
            rounded = counts.quantised - counts.copied
            shown.note(
                f"note: of {counted(counts.quantised, 'quantised matrix', 'quantised matrices')},"
                f" {counts.copied} were copied as they are, {rounded} rounded a second time"
            )

    def _importance(self, progress: Progress) -> Mapping[str, Tensor]:
        """How much each input of a weight counts, by a short text that the model reads."""
        progress.start("reading the calibration text", None)
        try:
            return importance(self._plan, self._tensors, Tokenizer(self._base))
        finally:
            progress.done()

    def _open(self, base: Path, adapters: Sequence[Path], scale: float, kind: str) -> None:
        config = dict(language_model(modern_config(read_json(base / "config.json"))))
        arch = _architecture(config)
        raw = open_tensors(base, adapters, scale)
        config = with_ties(config, raw.untied)
        self._tensors = viewed(config, raw)
        plan = plan_of(config)
        if plan is None:
            raise _inexpressible(config, "this variant has no plan")
        self._plan = plan = bind(plan, self._tensors.shapes)
        whole = _completed(config)
        self._targets = gguf_writing.targets_of(plan, self._tensors, arch, whole, kind)
        shapes = {target.name: target.shape for target in self._targets}
        _check_experts(kind, shapes)
        self._made = facts_of(whole, shapes)
        self._made.values.update(gguf_writing.numbers_of(plan, self._tensors, arch))
        shapes |= {name: (len(values),) for name, values in self._made.factors.items()}
        self._compare(plan, config, shapes)
        self.notes += _in_llama_cpp(self._made, shapes)

    def _compare(self, plan: Plan, config: dict[str, Any], shapes: Shapes) -> None:
        """Compare the plan with that of a reader of the file."""
        infos = {name: TensorInfo(type_named("F32"), shape, 0, 0) for name, shape in shapes.items()}
        facts = {"general.architecture": self._made.architecture, **self._made.values}
        found = config_of(GgufHeader(facts, infos, 0), lambda name: self._made.factors[name])
        other = [*differences(plan_of(found or {}), plan)]
        if lost := next((one for one in other if _WINDOW not in one), ""):
            raise _inexpressible(config, f"a reader would compute with {lost}")
        if other:
            self.notes = (
                "note: GGUF files of this architecture have no sliding window: other programs let"
                " every token see all of the text",
            )

    def _all_facts(self, base: Path, kind: str, general: Mapping[str, str]) -> dict[str, Any]:
        rows = next(one.shape[0] for one in self._targets if one.name == "token_embd.weight")
        return {
            "general.architecture": self._made.architecture,
            "general.type": "model",
            "general.file_type": file_type_of(kind),
            "general.quantization_version": _QUANTISATION,
            **general,
            **self._made.values,
            **_tokenizer(base, rows),
        }


def _check_experts(kind: str, shapes: Shapes) -> None:
    """Raise Mismatch for a mix of experts where the model has none."""
    if MIXES[kind].experts and not any("_exps." in name for name in shapes):
        raise Mismatch(
            f"{kind} stores only experts in {MIXES[kind].experts}, and this model has none",
            f"use `--to gguf:{MIXES[kind].kind}`, which stores the same numbers",
        )


def _in_llama_cpp(made: FileFacts, shapes: Shapes) -> tuple[str, ...]:
    """What llama.cpp does with the file, where that is not what llmchat does."""
    about = made.architecture, made.values, shapes
    theirs = f"its `{made.architecture}` models"
    if why := refusal(*about):
        return (f"note: llama.cpp does not load this file, only llmchat does: {theirs} {why}",)
    if why := deviation(*about):
        return (
            f"note: with this file, llama.cpp computes differently from llmchat: {theirs} {why}",
        )
    return ()


def _tokenizer(base: Path, rows: int) -> dict[str, Any]:
    """The facts of the tokenizer: those of the GGUF file that a folder points to, if it does."""
    pointer = read_json(base / GGUF_POINTER)
    if not pointer:
        return tokenizer_facts(base, rows)
    facts = read_header(base / pointer["files"][0]).facts
    own = {name: value for name, value in facts.items() if name.startswith("tokenizer.ggml.")}
    return own or tokenizer_facts(base, rows)


def _architecture(config: Mapping[str, Any]) -> str:
    arch = architecture_of(config)
    if arch is None:
        raise Mismatch(
            f"llmchat cannot write a GGUF file of the model type `{config.get('model_type')}`",
            "`llmchat convert --help` lists the architectures; llama.cpp's convert_hf_to_gguf.py"
            " has more",
        )
    return arch


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the defaults of transformers' class for the keys that it leaves out."""
    from transformers import AutoConfig

    given = {name: value for name, value in config.items() if value is not None}
    try:
        return {**AutoConfig.for_model(**config).to_dict(), **given}
    except ValueError:  # ChatGLM, whose class is not in transformers.
        return given


def _inexpressible(config: Mapping[str, Any], why: str) -> Mismatch:
    return Mismatch(
        f"a GGUF file cannot express this {config.get('model_type')}: {why}",
        "`--to int4` writes the model for llmchat",
    )
