"""`fonoteca train prepare`: speech corpora, as they are published, into one manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import INTERRUPTED, CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    from training.corpora.description import Description
    from training.corpora.preparation import Preparation
    from training.prepare import OnProgress

PLAIN_LINE_EVERY_S = 10.0


class LeakKind(StrEnum):
    AUDIO = "audio"
    TEXT = "text"
    SPEAKER = "speaker"
    PROGRAMME = "programme"


class SplitGroup(StrEnum):
    SPEAKER = "speaker"
    TEXT = "text"


def prepare(
    corpora: Annotated[
        list[str],
        typer.Argument(
            help="Corpora: FOLDER, NAME=FOLDER, or a .toml file that describes one (docs/corpora.md).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the manifest and the report. Needed but with --look.",
            show_default=False,
        ),
    ] = None,
    look: Annotated[
        bool,
        typer.Option(
            "--look", help="Only say what the folders hold: layouts, columns, rows. No audio is read."
        ),
    ] = False,
    held_out_share: Annotated[
        float | None,
        typer.Option(
            "--held-out-share",
            min=0.001,
            max=0.4,
            help="Split corpora that have no split: this share for validation, and again for test. Unset: all train.",
            show_default=False,
        ),
    ] = None,
    split_by: Annotated[
        SplitGroup, typer.Option("--split-by", help="What such a split keeps on one side.")
    ] = SplitGroup.SPEAKER,
    seed: Annotated[int, typer.Option("--seed", help="Of such a split.")] = 0,
    drop_leaks: Annotated[
        list[LeakKind] | None,
        typer.Option(
            "--drop-leaks",
            help="Leave out rows of train that share this with a held-out split. May be given several times.",
            show_default=False,
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Of rows of train with the same sound, keep the first.")
    ] = False,
    min_s: Annotated[float, typer.Option("--min-s", min=0.0, help="Shortest clip, in seconds.")] = 0.3,
    max_s: Annotated[
        float, typer.Option("--max-s", max=40.0, help="Longest clip, in seconds. The model takes 40 at most.")
    ] = 40.0,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Processes that decode. Unset: one a core.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make one manifest of speech corpora, and say what was found and refused.

    Reads Common Voice, FLEURS, OpenSLR, parquet with embedded audio, audio folders, and lists of any columns.
    Writes manifest.parquet, report.md, rejects.csv, duplicates.csv and leaks.csv into --out. Clips that were
    decoded before and did not change are not decoded again; an interrupted run goes on.
    """
    from training.corpora.checks import Limits
    from training.corpora.description import CorpusError, describe
    from training.corpora.preparation import PrepareSettings
    from training.corpora.sharing import Leak
    from training.corpora.splitting import NewSplit, SplitBy
    from training.prepare import prepare as make

    output = Output(as_json)
    try:
        described = [describe(given) for given in corpora]
        if look:
            _look(described, output)
            return
        if out is None:
            raise CliError(
                "where shall the manifest go? Give --out DIR, or --look to see what the folders hold"
            )
        settings = PrepareSettings(
            limits=Limits(min_s=min_s, max_s=max_s),
            new_split=None
            if held_out_share is None
            else NewSplit(held_out_share, seed=seed, by=SplitBy(split_by.value)),
            drop_leaks=frozenset(Leak(kind.value) for kind in drop_leaks or ()),
            drop_duplicates=drop_duplicates,
            **({} if workers is None else {"workers": workers}),
        )
        with _progress(output) as show:
            preparation = make(described, out, settings, on_progress=show)
    except CorpusError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"{error.filename or out}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        raise CliError(
            "interrupted: what was decoded is remembered, and the same command goes on from there",
            exit_code=INTERRUPTED,
        ) from None
    _tell(preparation, output)


def _look(described: list[Description], output: Output) -> None:
    """Say what the folders hold, without their audio."""
    from training.prepare import read_corpora
    from training.prepare_report import found_lines

    corpora = read_corpora(described)
    if output.as_json:
        output.document(
            [
                {
                    "dataset": corpus.description.name,
                    "folder": str(corpus.description.folder),
                    "files": [
                        {
                            "layout": files.layout,
                            "split": files.split,
                            "rows": files.n_rows,
                            "read": dict(files.became),
                            "not_read": list(files.ignored),
                        }
                        for files in corpus.found
                    ],
                    "bad_rows": len(corpus.rejects),
                    "left_out": dict(corpus.left_out),
                    "notes": list(corpus.notes),
                }
                for corpus in corpora
            ]
        )
        return
    for corpus in corpora:
        output.line(f"{corpus.description.name} ({corpus.description.folder})")
        for line in found_lines(corpus):
            output.line(f"  {line}")
        for what, count in corpus.left_out.items():
            output.line(f"  - left out, as asked: {count:,} with {what}")
        for line in corpus.notes:
            output.line(f"  - {line}")
        for reject in corpus.rejects[:5]:
            output.line(f"  - refused: {reject.where}: {reject.detail}")
        if len(corpus.rejects) > 5:
            output.line(f"  - ... and {len(corpus.rejects) - 5:,} more rows")


def _tell(preparation: Preparation, output: Output) -> None:
    from training.prepare_report import warnings

    hours = sum(one.duration_s for one in preparation.utterances) / 3600
    if output.as_json:
        output.document(_document(preparation, hours))
        return
    for name in dict.fromkeys(corpus.description.name for corpus in preparation.corpora):
        own = [one for one in preparation.utterances if one.dataset == name]
        splits = ", ".join(
            f"{split} {sum(one.split == split for one in own):,}"
            for split in dict.fromkeys(one.split for one in own)
        )
        reasons = preparation.rejects_by_reason(name)
        refused = ", ".join(f"{reason.value} {count:,}" for reason, count in reasons.items()) or "none"
        own_hours = sum(one.duration_s for one in own) / 3600
        output.line(f"{name}: {splits or 'nothing'} ({own_hours:.2f} h); refused: {refused}")
    for warning in warnings(preparation):
        note(f"note: {warning}")
    output.line(
        f"{preparation.manifest}: {len(preparation.utterances):,} utterances, {hours:.2f} hours; "
        f"read {preparation.report}"
    )


def _document(preparation: Preparation, hours: float) -> dict[str, Any]:
    from training.prepare_report import warnings

    return {
        "manifest": str(preparation.manifest),
        "sha256": preparation.manifest_sha256,
        "report": str(preparation.report),
        "utterances": len(preparation.utterances),
        "hours": round(hours, 4),
        "splits": {
            split: sum(one.split == split for one in preparation.utterances)
            for split in dict.fromkeys(one.split for one in preparation.utterances)
        },
        "refused": {reason.value: count for reason, count in preparation.rejects_by_reason().items()},
        "leaks": [
            {"dataset": one.dataset, "shares": one.kind.value, "rows": one.n_rows}
            for one in preparation.leaks.counts
        ],
        "warnings": warnings(preparation),
    }


@contextmanager
def _progress(output: Output) -> Iterator[OnProgress]:
    """A function that shows how far decoding is: moving bars on a terminal, else a line now and then."""
    if not output.live:
        yield _plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(dataset: str, n_known: int, n_wanted: int) -> None:
            if dataset not in tasks:
                tasks[dataset] = bars.add_task(dataset, total=n_wanted)
            bars.update(tasks[dataset], completed=n_known)

        yield show


def _plain_lines() -> Callable[[str, int, int], None]:
    shown_at = time.monotonic()

    def show(dataset: str, n_known: int, n_wanted: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if n_known == n_wanted or now - shown_at >= PLAIN_LINE_EVERY_S:
            shown_at = now
            note(f"{dataset}: {n_known:,} of {n_wanted:,} clips looked at")

    return show
