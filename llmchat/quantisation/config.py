"""The quantisation that a config.json declares, and the kinds that llmchat does not run."""

from collections.abc import Iterable, Mapping
from typing import Any

from llmchat.errors import IntegrityError, Mismatch
from llmchat.parse_guard import shown

Table = Mapping[str, Any]
KEYS = ("quantization_config", "compression_config")
METHODS = (
    "gptq", "awq", "compressed-tensors", "fp8", "fbgemm_fp8", "modelopt", "mxfp4", "bitsandbytes",
    "chatglm",
)  # fmt: skip
_NAMES = {
    "exl2": "EXL2", "exl3": "EXL3", "aqlm": "AQLM", "hqq": "HQQ", "quip": "QuIP#", "vptq": "VPTQ",
    "nvfp4": "NVFP4", "mxfp8": "MXFP8", "eetq": "EETQ", "quanto": "Quanto", "torchao": "torchao",
    "higgs": "HIGGS", "bitnet": "BitNet", "spqr": "SpQR", "quark": "Quark", "fp_quant": "FP-Quant",
    "sinq": "SINQ", "mlx": "MLX",
}  # fmt: skip
# Tensors that only one kind of quantisation has, for files whose config.json names none.
_TENSORS = {
    ".q_invperm": "EXL2", ".trellis": "EXL3", ".W_q": "HQQ", ".codebooks": "AQLM",
    ".Qidxs": "QuIP#",
}  # fmt: skip
_INSTEAD = (
    "pull the model in 16 bits, or as GGUF, GPTQ or AWQ: its card names the original, and"
    " `llmchat pull ORG/NAME-GGUF:Q4_K_M` takes a GGUF file"
)

# Where older checkpoints describe their quantisation.
OWN_TABLE = "quantize_config.json"


def with_own_table(config: dict[str, Any], table: Table) -> dict[str, Any]:
    """config.json, with the table of a file of its own where it has none."""
    if not table or any(config.get(key) for key in KEYS):
        return config
    return config | {KEYS[0]: dict(table)}


def declared(config: Table) -> Table | None:
    """The table of a config.json that describes the quantisation; None for 16-bit weights.

    Raises IntegrityError for anything but a table.
    """
    text = config.get("text_config")
    places = (config, text if isinstance(text, dict) else {})
    for table in (place[key] for place in places for key in KEYS if place.get(key)):
        if not isinstance(table, dict):
            raise IntegrityError("the quantisation in config.json is not a table")
        if table.get("quant_method") or "bits" in table or "w_bit" in table or _of_bnb(table):
            return table
    return _of_chatglm(config)


def _of_chatglm(config: Table) -> Table | None:
    """A table for `quantization_bit`. Raises IntegrityError for an invalid number."""
    bits = config.get("quantization_bit") if config.get("model_type") == "chatglm" else None
    if bits is None or bits == 0:
        return None
    if bits not in (4, 8) or not isinstance(bits, int):
        raise IntegrityError(f"config.json: invalid `quantization_bit`: {shown(str(bits))}")
    return {"quant_method": "chatglm", "bits": bits}


def method_of(table: Table) -> str:
    """The name of the method, as in METHODS. Raises Mismatch for one that llmchat does not run."""
    method = str(table.get("quant_method") or "").lower()
    if not method:
        method = _unnamed(table)
    if method == "modelopt" and str(table.get("quant_algo")).upper() != "FP8":
        raise refusal(str(table.get("quant_algo")).upper())
    if method == "auto-round":
        return _of_autoround(table)
    if method not in METHODS:
        raise refusal(_NAMES.get(method, shown(method)))
    return method


def _of_autoround(table: Table) -> str:
    """AutoRound writes the layouts of others."""
    layout = str(table.get("packing_format"))
    known = {"auto_round:auto_gptq": "gptq", "auto_round:auto_awq": "awq"}
    if layout not in known:
        raise refusal(f"AutoRound in the layout `{layout}`")
    return known[layout]


def _unnamed(table: Table) -> str:
    """The method of a table that does not name it, by the keys that only one method writes."""
    if _of_bnb(table):
        return "bitsandbytes"
    if "w_bit" in table or "zero_point" in table:
        return "awq"
    return "gptq" if "desc_act" in table or "damp_percent" in table else "mlx"


def refusal(kind: str) -> Mismatch:
    """The error for weights of a kind that llmchat does not run."""
    return Mismatch(f"the weights are {shown(kind)}, which llmchat does not run", _INSTEAD)


def refuse_tensors(names: Iterable[str]) -> None:
    """Raise Mismatch for tensors of such a kind in files whose config.json declares none."""
    for name in names:
        for ending, kind in _TENSORS.items():
            if name.endswith(ending):
                raise refusal(kind)
        if name.endswith(".qweight"):
            raise Mismatch(
                "the weights are GPTQ or AWQ, but config.json has no quantization_config",
                "add the repo's quantize_config.json to the folder, or pull another copy",
            )


def number(table: Table, *names: str, otherwise: int) -> int:
    """A whole number under the first of these names. Raises IntegrityError for anything else."""
    value = next((table[name] for name in names if table.get(name) is not None), otherwise)
    if type(value) is not int:
        raise IntegrityError(
            f"config.json: `{names[0]}` of the quantisation is {shown(str(value))}"
        )
    return value


def _of_bnb(table: Table) -> bool:
    return bool(table.get("load_in_4bit") or table.get("load_in_8bit"))
