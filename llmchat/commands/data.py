"""The commands for training data: inspect, clean, convert. Nothing that is read is ever written to."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.settings import World
from llmchat.terminal_text import fit_for

if TYPE_CHECKING:
    from llmchat.finetune.data.cleaner import Examiner, Report

app = typer.Typer(
    help="Training data: what it holds, what is wrong with it, other forms of it.",
    no_args_is_help=True,
)

_Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="A file, a folder, - for stdin, hub:org/name[:split] or sessions:[ID]; =WEIGHT behind one for its share in a mixture.",
    ),
]
_Format = Annotated[
    str,
    typer.Option(
        "-f",
        "--format",
        help="What it is: auto (by its fields), alpaca, dolly, sharegpt, messages, …",
    ),
]
_Examples = Annotated[int, typer.Option("--examples", help="Examples of each flaw.")]
_Language = Annotated[
    str, typer.Option("--language", help="Find records in other languages than this: en, de, zh.")
]
_MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens", help="Find records of more tokens, counted with --model, else estimated."
    ),
]
_Near = Annotated[bool, typer.Option("--near/--no-near", help="Look for near duplicates.")]
_Output = Annotated[
    str, typer.Option("-o", "--output", help="The file to write: JSON lines, or a list for *.json.")
]
_Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
_MixSeed = Annotated[int, typer.Option("--seed", help="Of a mixture.")]
_JoinInput = Annotated[
    bool, typer.Option("--join-input", help="Write inputs into their questions.")
]


@app.command()
def inspect(
    ctx: typer.Context,
    sources: _Sources,
    format: _Format = "auto",
    examples: _Examples = 3,
    languages: Annotated[bool, typer.Option("--languages", help="Count languages.")] = False,
    language: _Language = "",
    max_tokens: _MaxTokens = 0,
    model: options.Model = None,
    near: _Near = True,
    seed: _MixSeed = 0,
    offline: options.Offline = None,
    json: options.Json = False,
) -> None:
    """Count records, lengths and flaws, with examples; changes nothing."""
    from llmchat.finetune.data import read
    from llmchat.finetune.data.cleaner import choose_drops

    world: World = ctx.obj
    records = read(sources, format, world, seed=seed, offline=bool(offline), strict=False)
    examiner = _examiner(
        world,
        choose_drops(),
        near,
        model,
        language=language,
        languages=languages,
        limit=max_tokens,
        examples=examples,
    )
    for record in records:
        examiner.examine(record)
    _show(world, examiner.report(), json=json, cleaned=False)


@app.command()
def clean(
    ctx: typer.Context,
    sources: _Sources,
    output: _Output = "",
    removed: Annotated[
        str,
        typer.Option(
            "--removed",
            help="Where removed records go, with the reasons; beside the output otherwise.",
        ),
    ] = "",
    drop: Annotated[
        str, typer.Option("--drop", help="Flaws to drop beside the certain ones: NAME,NAME or all.")
    ] = "",
    keep: Annotated[
        str, typer.Option("--keep", help="Flaws never to drop: NAME,NAME or all.")
    ] = "",
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    format: _Format = "auto",
    to: Annotated[
        str, typer.Option("--to", help="alpaca, messages, sharegpt or text; as it came otherwise.")
    ] = "",
    examples: _Examples = 3,
    language: _Language = "",
    max_tokens: _MaxTokens = 0,
    model: options.Model = None,
    near: _Near = True,
    seed: _MixSeed = 0,
    force: _Force = False,
    offline: options.Offline = None,
    json: options.Json = False,
) -> None:
    """Leave out records with flaws. Without --output nothing is written: it says what would be done."""
    from llmchat.finetune.data import convert, read
    from llmchat.finetune.data.cleaner import choose_drops
    from llmchat.finetune.data.cleaner import clean as go
    from llmchat.finetune.data.sources import first_format, parse

    world: World = ctx.obj
    drops = choose_drops(_list(drop), _list(keep))
    if drops & {"near-duplicate"} and not near:
        raise UsageError("--no-near does not look for what --drop near-duplicate drops")
    records = read(sources, format, world, seed=seed, offline=bool(offline), strict=False)
    kept_path, removed_path = _targets(output, removed, list(_names(sources, world, format)), force)
    known = to or first_format(parse(sources[0], world, format), format, world)
    form = (
        convert.form_named(to)
        if to
        else convert.FORMS.get({"dolly": "alpaca"}.get(known, known), convert.to_messages)
    )
    examiner = _examiner(
        world, drops, near, model, language=language, limit=max_tokens, examples=examples
    )
    with ExitStack() as files:
        if kept_path and removed_path:
            write_kept, write_removed = (
                files.enter_context(convert.writer(path, world))
                for path in (kept_path, removed_path)
            )
        else:
            write_kept = write_removed = lambda value: None
        report = go(
            records,
            examiner,
            drops,
            fix=fix,
            keep=lambda record: write_kept(form(record)),
            remove=lambda record, found: write_removed(
                {"place": record.place, "reasons": found, "record": convert.as_found(record)}
            ),
        )
    _show(world, report, json=json, cleaned=True)
    done = f"{report.kept} of {report.records} records kept"
    gone = f"{report.records - report.kept} removed"
    print(
        f"{done}: {kept_path}\n{gone}: {removed_path}"
        if kept_path
        else f"{done}, {gone}; nothing was written: --output FILE does",
        file=world.stderr,
    )


@app.command("convert")
def convert_data(
    ctx: typer.Context,
    sources: _Sources,
    to: Annotated[str, typer.Option("--to", help="alpaca, messages, sharegpt or text.")],
    output: _Output = "",
    format: _Format = "auto",
    language: Annotated[
        str, typer.Option("--language", help="Trees of OASST in this language only.")
    ] = "",
    join_input: _JoinInput = False,
    seed: _MixSeed = 0,
    force: _Force = False,
    offline: options.Offline = None,
) -> None:
    """Write any known format as another: to a file, or as JSON lines to stdout."""
    from llmchat.finetune.data import convert, read

    world: World = ctx.obj
    form = convert.form_named(to)
    records = read(sources, format, world, seed=seed, language=language, offline=bool(offline))
    path = convert.free(output, list(_names(sources, world, format)), force) if output else None
    count = 0
    with convert.writer(path, world) as write:
        for record in records:
            count += 1
            write(form(convert.joined(record) if join_input else record))
    if path:
        print(f"{count} records: {path}", file=world.stderr)


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _names(sources: list[str], world: World, format: str) -> Iterator[str]:
    from llmchat.finetune.data.sources import parse

    return (parse(text, world, format).name for text in sources)


def _targets(
    output: str, removed: str, names: list[str], force: bool
) -> tuple[Path | None, Path | None]:
    from llmchat.finetune.data import convert

    if not output:
        if removed:
            raise UsageError("--removed needs --output")
        return None, None
    kept = convert.free(output, names, force)
    gone = convert.free(removed or str(kept.with_name(f"{kept.stem}.removed.jsonl")), names, force)
    if kept.resolve() == gone.resolve():
        raise UsageError("--output and --removed are the same file")
    return kept, gone


def _examiner(
    world: World, drops: frozenset[str], near: bool, model: str | None, **options: Any
) -> "Examiner":
    from llmchat.finetune.data.cleaner import Examiner
    from llmchat.finetune.data.duplicates import Near
    from llmchat.finetune.data.lengths import counter
    from llmchat.models.opener import preset_of

    if near and not Near.available() and "near-duplicate" not in drops:
        print(
            "note: near duplicates are not looked for: they need `rensa` (pip install 'llmchat[finetune]')",
            file=world.stderr,
        )
        near = False
    count, why = counter(preset_of(world, model=model) if model else None, world)
    if why and (model or options["limit"]):
        print(f"note: {why}", file=world.stderr)
    return Examiner(drops, near=near, count=count, **options)


def _show(world: World, report: "Report", *, json: bool, cleaned: bool) -> None:
    from llmchat.ui import tables
    from llmchat.ui.json_output import print_json

    if json:
        return print_json(world, report)
    lengths = {name: getattr(report, name) for name in ("question", "answer", "tokens")}
    tables.facts(
        world,
        {
            "records": report.records,
            "plain texts": report.texts or "",
            "turns": report.turns,
            "with an input": report.with_input,
            "with a system text": report.with_system,
            **{
                f"{name}{'' if name == 'tokens' else ' characters'}": f"median {one.median}, p95 {one.p95}, longest {one.longest}"
                for name, one in lengths.items()
            },
            "languages": ", ".join(
                f"{code or 'unclear'} {count}" for code, count in report.languages.items()
            ),
        },
    )
    for one in report.flaws:
        if one.count:
            acts = (
                (f", {one.dropped} dropped" if one.dropped else "")
                + (f", {one.fixed} mended" if one.fixed else "")
                if cleaned
                else ""
            )
            print(f"\n{one.flaw}: {one.count}{acts} — {one.about}", file=world.stdout)
            for place, shown in one.examples:
                print(fit_for(world.stdout, f"  {place}: {shown}"), file=world.stdout)
    if not any(one.count for one in report.flaws):
        print("\nno flaws found", file=world.stdout)
    if cleaned:
        print(file=world.stdout)
