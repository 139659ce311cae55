"""Print a plan: aligned, readable without colour."""

from collections.abc import Iterator

from llmchat.hub.choices import Choice
from llmchat.hub.plan import Plan, PlannedPart
from llmchat.hub.weights import kind_in_words
from llmchat.output.formatting import byte_count, counted

__all__ = ["choices", "count", "lines", "short"]


def choices(plan: Plan) -> list[str]:
    """The variants of a GGUF repo as a table: name, size, memory, and whether it fits here."""
    if len(plan.choices) < 2:
        return []
    width = max(len(choice.name) for choice in plan.choices)
    return [
        f"{'file':{width}}  {'size':>9}  {'memory':>9}",
        *(_choice(one, width) for one in plan.choices),
    ]


def _choice(choice: Choice, width: int) -> str:
    size, memory = byte_count(choice.size), byte_count(choice.memory)
    fits = "fits" if choice.fits else "does not fit"
    parts = f", in {choice.files} files" if choice.files > 1 else ""
    chosen = " (chosen)" if choice.chosen else ""
    return f"{choice.name:{width}}  {size:>9}  {memory:>9}  {fits}{parts}{chosen}"


def lines(plan: Plan) -> list[str]:
    """Every fact of a plan, a line each."""
    return [f"{name:10} {text}".rstrip() for name, text in _facts(plan)]


def short(plan: Plan) -> list[str]:
    """What to know before a download; nothing when all files are here."""
    if not plan.download and not any(
        part.form in ("gguf", "pickle") and not part.here for part in plan.parts
    ):
        return []
    needs = plan.memory.total.get(plan.weights)
    memory = (
        f"{byte_count(needs)} of memory as {kind_in_words(plan.weights, plan.quantised)},"
        f" {byte_count(plan.free)} free"
        if needs
        else ""
    )
    left = f" ({byte_count(plan.partial)} are here from an earlier attempt)" if plan.partial else ""
    first = "; ".join(
        filter(
            None,
            (f"{byte_count(plan.download)} to download{left}", memory, f"licence: {plan.licence}"),
        )
    )
    return [f"{plan.model}: {first}", *(f"note: {note}" for note in plan.notes)]


def count(parameters: float) -> str:
    """135 million, 6.74 billion."""
    return (
        f"{parameters / 1e9:.2f} billion"
        if parameters >= 1e9
        else f"{parameters / 1e6:.3g} million"
    )


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    yield (
        "model",
        plan.model + (f", {count(plan.parameters)} parameters" if plan.parameters else ""),
    )
    adapters = {facts.name: facts for facts in plan.adapters}
    for part in plan.parts:
        yield part.role, _part(part)
        facts = adapters.get(part.source.partition("@")[0])
        if part.role == "adapter" and facts:
            tensors = (
                f", {counted(facts.tensors, 'tensor')}"
                if facts.tensors
                else ", its tensors are checked before the base is fetched"
            )
            targets = " ".join(facts.targets) or "targets by pattern"
            yield (
                "",
                f"rank {facts.rank}, alpha {facts.alpha:g}, {targets}{tensors}",
            )
            yield "", facts.match
    yield "licence", plan.licence
    left = (
        f", {byte_count(plan.partial)} more are here from an earlier attempt"
        if plan.partial
        else ""
    )
    yield "download", byte_count(plan.download) + left if plan.download else f"nothing{left}"
    for disk in plan.disks:
        yield (
            "disk",
            f"{byte_count(disk.needed)} needed, {byte_count(disk.free)} free in {disk.folder}",
        )
    yield from _memory(plan)
    for note in plan.notes:
        yield "note", note
    for problem in plan.problems:
        yield "problem", problem.line
        if problem.hint:
            yield "", problem.hint
    for index, other in enumerate(plan.instead):
        yield "" if index else "instead", other
    yield (
        "verdict",
        {
            "yes": "yes: it fits",
            "no": "no",
            "unknown": "unknown: its size in memory shows after the download",
        }[plan.verdict],
    )


def _part(part: PlannedPart) -> str:
    at = (
        f" @ {part.revision[:8]}"
        if part.revision and f"@{part.revision}" not in part.source
        else ""
    )
    files = counted(part.files or 1, "file")
    what = "here" if part.here else f"{part.form}"
    size = byte_count(part.size) + ("" if part.here else f" in {files}")
    return f"{part.source}{at}: {size}, {what}{', gated' if part.gated else ''}"


def _memory(plan: Plan) -> Iterator[tuple[str, str]]:
    """A line for each kind of weights: its size, and whether it fits."""
    if not plan.memory.total:
        return
    yield "memory", f"{byte_count(plan.free)} free in {plan.place}"
    if plan.memory.kv:
        yield (
            "",
            f"{byte_count(plan.memory.kv)} of each size are for {plan.memory.context:,} tokens of"
            " context",
        )
    for kind, total in plan.memory.total.items():
        fits = "fits" if total <= plan.free else "does not fit"
        chosen = " (chosen)" if kind == plan.weights else ""
        name = kind_in_words(kind, plan.quantised)
        yield "", f"{name}  {byte_count(total):>9}  {fits}{chosen}"
