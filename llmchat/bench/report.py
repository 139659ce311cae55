"""The results of a benchmark, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

COLUMNS = (
    "engine",
    "decode tok/s",
    "of bandwidth",
    "prefill tok/s",
    "load s",
    "first token s",
    "peak memory",
)


# Names of machine.facts → names of llama.cpp; others do not matter to it.
_IN_LLAMA_CPP = {
    "amx_int8": "AMX_INT8",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "asimddp": "DOTPROD",
    "neon": "NEON",
}


class Row(Struct, omit_defaults=True):
    """The results of one competitor; None: not measured, because of `error` or Ctrl-C.

    Times are measured with the files in the kernel's page cache; peak memory after both
    measurements.
    """

    engine: str
    """Name of the engine."""
    weights: str
    """Kind of weights."""
    ours: bool = False
    """Whether it is llmchat, as a chat uses it."""
    decode_tps: float | None = None
    """Decode, tokens per second (median of the runs); null if not measured."""
    prefill_tps: float | None = None
    """Prefill, tokens per second."""
    bandwidth_share: float | None = None
    """Bytes that decoding must read, as a fraction of what memory can deliver in that time."""
    load_s: float | None = None
    """Seconds from process start to a loaded model."""
    first_token_s: float | None = None
    """Seconds from process start to the first token."""
    peak_bytes: int | None = None
    """Peak memory of the process."""
    weight_bytes: int | None = None
    """Bytes of the weights."""
    bytes_per_token: int | None = None
    """Bytes read for one token."""
    build: str = ""
    """Processor features that a peer was built with, as it reports them."""
    runs: dict[str, list[float]] = {}
    """Every run of each measurement."""
    error: str = ""
    """Why it was not measured."""


class Benchmark(Struct, kw_only=True):
    """The results of a benchmark, as `llmchat bench --json` prints them.

    The speeds of a chat are those of the first row that is llmchat's.
    """

    model: str
    """Name of the model."""
    decode_tps: float | None = None
    """Decode speed of a chat, tokens per second."""
    prefill_tps: float | None = None
    """Prefill speed of a chat, tokens per second."""
    machine: dict[str, Any]
    """Processor, cores, device and memory speed."""
    date: str
    """Day of the run, YYYY-MM-DD."""
    versions: dict[str, str]
    """Library → version."""
    rounds: int
    """Number of measurements."""
    prompt_tokens: int
    """Tokens that a prefill reads."""
    decode_tokens: int
    """Tokens that a decode writes."""
    rows: list[Row]
    """One row for each engine and kind of weights."""
    skipped: list[str]
    """What was not measured, and why."""
    interrupted: bool = False
    """Whether Ctrl-C ended the run."""


def build_line(row: Row, report: Benchmark) -> str:
    """What a peer was built with, and which features of this processor its build does not use."""
    has = report.machine.get("features") or ()
    built = row.build.split()
    unused = [name for name in has if name in _IN_LLAMA_CPP and _IN_LLAMA_CPP[name] not in built]
    missing = f"; without {', '.join(unused)} of this processor" if unused else ""
    return f"{row.engine} was built with {row.build}{missing}"


def cells(row: Row) -> Mapping[str, str]:
    """A row as the table shows it."""
    share = None if row.bandwidth_share is None else f"{100 * row.bandwidth_share:.0f} %"
    memory = None if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f} MB"
    measured: Sequence[str | None] = (
        row.engine,
        _number(row.decode_tps, 1),
        share,
        _number(row.prefill_tps, 0),
        _number(row.load_s, 2),
        _number(row.first_token_s, 2),
        memory,
    )
    return {name: cell or "-" for name, cell in zip(COLUMNS, measured, strict=True)}


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
