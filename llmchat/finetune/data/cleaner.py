"""Examine every record once: its flaws and, for `clean`, whether it is kept.

Records stream through; only a hash, a sketch and the lengths of each are kept. Duplicates are found
only among records that no other flaw drops, so the only good copy of a conversation is kept.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct, field

from llmchat.errors import UsageError, did_you_mean
from llmchat.finetune.data import flaws
from llmchat.finetune.data.duplicates import Exact, Near
from llmchat.finetune.data.languages import Languages
from llmchat.finetune.data.lengths import Count, Lengths, estimate, summary
from llmchat.finetune.records import Record

Found = dict[str, str]


class Finding(Struct):
    """The counts of a flaw: records with it, dropped for it (by their first reason), and fixed."""

    flaw: str
    """Name of the flaw."""
    about: str
    """Its description."""
    count: int = 0
    """Records that have it."""
    dropped: int = 0
    """Records that were dropped for it."""
    fixed: int = 0
    """Records that were fixed."""
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Place and text of some of them."""


class Report(Struct):
    """The contents of a data set. Lengths are in characters, those of whole records in tokens."""

    records: int
    """Records that were read."""
    kept: int
    """Records without a reason to drop them."""
    texts: int
    """Records that are plain text."""
    turns: int
    """Questions in all."""
    with_input: int
    """Records with an input."""
    with_system: int
    """Records with a system text."""
    question: Lengths
    """Characters of the questions."""
    answer: Lengths
    """Characters of the answers."""
    tokens: Lengths
    """Tokens of whole records."""
    languages: dict[str, int]
    """Language → records; empty code for unclear ones."""
    flaws: list[Finding]
    """One entry for each flaw."""


def choose_drops(drop: Iterable[str] = (), keep: Iterable[str] = ()) -> frozenset[str]:
    """The flaws to drop: the certain ones plus `drop` minus `keep`; `all` names all of them.

    Raises UsageError for an unknown name.
    """
    known, added, spared = flaws.names(), frozenset(drop), frozenset(keep)
    for name in (added | spared) - {"all"}:
        if name not in known:
            raise UsageError(
                f"unknown flaw `{name}`",
                did_you_mean(name, tuple(known)) or f"there are {', '.join(known)}",
            )
    if both := sorted(added & spared):
        raise UsageError(f"`{both[0]}` cannot be dropped and kept")
    if "all" in spared:
        return added
    certain = {name for name, (_, drops) in known.items() if drops}
    return frozenset(known if "all" in added else certain | added) - spared


class Examiner:
    """Examines records one after another and remembers enough of them for a report.

    near: find near duplicates; language: the code that records should be in; languages: count them;
    limit: maximum number of tokens, 0 for no limit.
    """

    def __init__(
        self,
        drops: Collection[str],
        *,
        near: bool = True,
        language: str = "",
        languages: bool = False,
        limit: int = 0,
        count: Count = estimate,
        examples: int = 3,
    ):
        self._drops = drops
        self._exact, self._near = Exact(), Near() if near else None
        self._languages = Languages() if language or languages else None
        self._language = self._languages.check(language) if self._languages and language else ""
        self._limit, self._count, self._examples = limit, count, examples
        self._findings = {name: Finding(name, about) for name, (about, _) in flaws.names().items()}
        self._spoken: Counter[str] = Counter()
        self._sizes: dict[str, array[int]] = {
            name: array("Q") for name in ("question", "answer", "tokens")
        }
        self._totals: Counter[str] = Counter()

    def examine(self, record: Record) -> Found:
        """The record's flaws, each with the text that shows it."""
        found = {name: shown for name, one in flaws.FLAWS.items() if (shown := one.find(record))}
        self._measure(record, found)
        if not self._drops & found.keys():
            if earlier := self._exact.earlier(record):
                found["duplicate"] = f"as {earlier}"
            elif self._near and (earlier := self._near.earlier(record)):
                found["near-duplicate"] = f"like {earlier}"
        self._remember(record, found)
        return found

    def clean(self, record: Record, *, fix: bool) -> tuple[Record | None, Found]:
        """The record to keep (fixed if `fix` is set) or None, and its remaining flaws."""
        if fix:
            for name, one in flaws.FLAWS.items():
                if one.fix and (shown := one.find(record)):
                    mended = one.fix(record)
                    if not one.find(mended):
                        self._show(name, record, shown)
                        self._findings[name].count += 1
                        self._findings[name].fixed += 1
                        record = mended
        found = self.examine(record)
        reasons = {name: shown for name, shown in found.items() if name in self._drops}
        if reasons:
            self._findings[next(iter(reasons))].dropped += 1
            return None, found
        self._totals["kept"] += 1
        return record, found

    def report(self) -> Report:
        total, sizes = self._totals, self._sizes
        return Report(
            records=total["records"],
            kept=total["kept"],
            texts=total["texts"],
            turns=total["turns"],
            with_input=total["with_input"],
            with_system=total["with_system"],
            question=summary(sizes["question"]),
            answer=summary(sizes["answer"]),
            tokens=summary(sizes["tokens"]),
            languages=dict(self._spoken.most_common()),
            flaws=list(self._findings.values()),
        )

    def _measure(self, record: Record, found: Found) -> None:
        tokens = self._count(record)
        if self._limit and tokens > self._limit:
            found["too-long"] = f"{tokens} tokens"
        if self._languages:
            code = self._languages.of(record)
            self._spoken[code] += 1
            if self._language and code not in ("", self._language):
                found["wrong-language"] = f"{code}: {next(flaws.texts(record), '')[:60]}"
        self._sizes["tokens"].append(tokens)
        self._sizes["question"].extend(map(len, flaws.questions(record)))
        self._sizes["answer"].extend(map(len, flaws.answers(record)))

    def _remember(self, record: Record, found: Found) -> None:
        roles = Counter(message.role for message in record.messages)
        self._totals.update(
            records=1, texts=bool(record.text), turns=roles["user"], with_system=roles["system"] > 0
        )
        self._totals["with_input"] += any(True for _ in flaws.inputs(record))
        for name, shown in found.items():
            self._findings[name].count += 1
            self._show(name, record, shown)

    def _show(self, name: str, record: Record, shown: str) -> None:
        if len(self._findings[name].examples) < self._examples:
            self._findings[name].examples.append((record.place, _printable(shown)))


def _printable(text: str) -> str:
    """One line that is safe to print on a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in " ".join(text.split())
    )


def clean(
    records: Iterable[Record],
    examiner: Examiner,
    drops: Collection[str],
    *,
    fix: bool,
    keep: Callable[[Record], None],
    remove: Callable[[Record, Found], None],
) -> Report:
    """Pass each record to `keep` or, with its flaws, to `remove`."""
    for record in records:
        kept, found = examiner.clean(record, fix=fix)
        if kept:
            keep(kept)
        else:
            remove(record, {name: shown for name, shown in found.items() if name in drops})
    return examiner.report()
