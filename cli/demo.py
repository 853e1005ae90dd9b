"""`fonoteca demo`: the whole way on this machine, from files to SQL, with the demo model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import INTERRUPTED, CliError
from cli.output import note
from cli.stack import PartLines, make_key, stop_signals

if TYPE_CHECKING:
    from evaluation.score import Score

DEMO_BROADCASTER = "radio-demo"
SQL_QUERY = """\
SELECT recording, count(*) AS segments, round(sum(end_s - start_s), 1) AS speech_s,
       sum(cardinality(string_to_array(text, ' '))) AS words,
       round(avg(confidence), 3) AS mean_confidence
FROM archive.segments
WHERE state = 'done'
GROUP BY recording
ORDER BY recording"""


@dataclass(frozen=True)
class Sample:
    """The sample archive: the folder to submit, and what is said in it."""

    folder: Path
    texts: dict[str, list[str]]
    """Recording name -> its sentences, in order."""
    damaged: frozenset[str]
    """Recordings that are meant to fail."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running, to look around, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 0,
) -> None:
    """Transcribe the sample archive on an embedded stack of its own, and remove the stack afterwards.

    Exit code 0: every recording came out as it should, the damaged one with its reason.
    """
    from compose.local.errors import StartInterruptedError

    with stop_signals() as stop_event, scratch_home() as home:
        try:
            ok = _run(home, port, keep=keep, stop_event=stop_event)
        except (StartInterruptedError, Interrupted):
            note("stopped")
            raise typer.Exit(INTERRUPTED) from None
    if not ok:
        raise CliError("the demo did not come out as it should: see above")


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


@contextmanager
def scratch_home() -> Iterator[Path]:
    """A new folder as FONOTECA_HOME, removed at the end. The person's own settings are dropped: the demo never
    touches their servers, and runs the demo model on the CPU."""
    from compose.local.folders import temporary_home

    for variable in [
        name for name in os.environ if name.startswith("FONOTECA_") and name != "FONOTECA_DEBUG"
    ]:
        del os.environ[variable]
    with temporary_home("fonoteca-demo-") as folder:
        os.environ |= {"FONOTECA_HOME": str(folder), "FONOTECA_DEVICE": "cpu", "FONOTECA_DTYPE": "float32"}
        yield folder
    if folder.exists():
        note(f"{folder} could not be removed whole: remove it by hand")


def _run(home: Path, port: int, *, keep: bool, stop_event: threading.Event) -> bool:
    from cli.database import database
    from compose.local.stack import Stack

    sample = read_sample()
    heading("A Fonoteca of your own: PostgreSQL, Valkey, API, media worker, GPU worker (on the CPU), beat")
    stack = Stack(home, port=port, on_progress=PartLines())
    try:
        stack.start(stop_event)
        with database() as engine:
            key = make_key(engine, DEMO_BROADCASTER, "made by fonoteca demo")
        stack.publish(api_key=key)
        address = f"{stack.api_url}/#key={key}"
        typer.echo(f"\nWhile this runs, open {address}")
        batch_id = submit(sample.folder, stop_event)
        ok = show_results(sample, batch_id)
        show_sql()
        if keep:
            heading("It goes on until Ctrl-C")
            typer.echo(f"Open {address}")
            typer.echo(f"In another terminal: FONOTECA_HOME={home} {sys.argv[0]} status")
            stack.run_until(stop_event)
            note("stopping")
        else:
            typer.echo(
                "\nThe stack stops now, and its folder goes with it. To look around:\n"
                f"  {sys.argv[0]} demo --keep --port 8000    the same, left open at http://127.0.0.1:8000/\n"
                f"  {sys.argv[0]} up                         a stack that keeps what you submit, same address"
            )
        return ok
    finally:
        stack.stop()


def heading(text: str) -> None:
    """A line that parts the demo's steps."""
    typer.echo(f"\n== {text}")


def samples_folder() -> Path:
    """Where the checkout keeps the sample archive."""
    return Path(__file__).resolve().parent.parent / "samples"


def read_sample() -> Sample:
    """The sample archive of the checkout.

    Raises:
        CliError: it is not there.
    """
    folder = samples_folder()
    try:
        recordings = json.loads((folder / "references.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CliError(
            f"{error.filename} is missing: run the demo from a checkout, or make it with `make sample-archive`"
        ) from error
    archive = folder / "archive"
    # a folder's files are submitted under its name
    named = {f"{archive.name}/{r['file']}": r for r in recordings}
    return Sample(
        folder=archive,
        texts={name: [said["text"] for said in r["sentences"]] for name, r in named.items() if r["readable"]},
        damaged=frozenset(name for name, r in named.items() if not r["readable"]),
    )


def submit(folder: Path, stop_event: threading.Event) -> str:
    """Submit the folder as a person would, with the `fonoteca submit` command; the batch's id."""
    heading(f"fonoteca submit {os.path.relpath(folder)}")
    command = [sys.executable, "-m", "cli.main", "submit", str(folder), "--name", "sample archive", "--json"]
    # its own session: Ctrl-C comes to us, and we end it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        watcher = threading.Thread(target=_end_on, args=(stop_event, process), daemon=True)
        watcher.start()
        assert process.stdout is not None
        output = process.stdout.read()
    if stop_event.is_set():
        raise Interrupted
    try:
        return str(json.loads(output)["batch"]["id"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise CliError(f"`fonoteca submit` ended with code {process.returncode}: see above") from None


def _end_on(event: threading.Event, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if event.wait(0.2):
            process.terminate()
            return


def show_results(sample: Sample, batch_id: str) -> bool:
    """Print transcripts, coverage and error rates; True when everything came out as it should."""
    from cli.client import ApiClient

    with ApiClient.connect() as client:
        recordings = sorted(client.recordings(batch_id), key=lambda r: r["name"])
        transcripts = {
            r["name"]: json.loads(client.transcript(r["id"], "json"))
            for r in recordings
            if r["state"] == "completed"
        }
    for recording in recordings:
        if recording["name"] in transcripts:
            print_transcript(transcripts[recording["name"]])
        else:
            failure = recording["failure"] or {"reason": "no reason was stored"}
            heading(f"{recording['name']}: {recording['state']}")
            typer.echo(f"  {failure['reason']}")
    heading("Coverage: every second of a recording is accounted for")
    sums_right = [print_coverage(name, transcripts[name]) for name in sorted(transcripts)]
    heading("Word error rate against what was really said")
    print_scores(sample, transcripts)
    failed = {r["name"] for r in recordings if r["state"] != "completed"}
    return all(sums_right) and failed == sample.damaged and set(transcripts) == set(sample.texts)


def print_transcript(transcript: dict[str, Any]) -> None:
    """One transcript: a line per segment with its times and confidence."""
    heading(f"{transcript['recording']} ({clock(transcript['duration_s'])})")
    if transcript["notice"]:
        typer.echo(f"  {transcript['notice']}")
    width = max(40, shutil.get_terminal_size((110, 24)).columns - 27)
    for segment in transcript["segments"]:
        times = f"{clock(segment['start_s'])}-{clock(segment['end_s'])}"
        flags = f" [{', '.join(segment['flags'])}]" if segment["flags"] else ""
        lines = wrap((segment["text"] or f"({segment['failure_reason']})") + flags, width)
        typer.echo(f"  {times}  {segment['confidence'] or 0:.2f}  {lines[0]}")
        for line in lines[1:]:
            typer.echo(" " * 25 + line)


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` characters; at least one line."""
    import textwrap

    return textwrap.wrap(text, width) or [""]


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths: 02:03.4."""
    return f"{int(seconds // 60):02d}:{seconds % 60:04.1f}"


def print_coverage(name: str, transcript: dict[str, Any]) -> bool:
    """One recording's seconds by kind; True when they make its duration."""
    parts = [transcript[part] for part in ("transcribed_s", "no_speech_s", "failed_s")]
    total, duration = sum(parts), transcript["duration_s"]
    adds_up = bool(abs(total - duration) < 0.002)  # each figure is rounded to the millisecond
    typer.echo(
        f"  {name:<32} transcribed {parts[0]:8.3f} + no speech {parts[1]:8.3f} + failed {parts[2]:6.3f}"
        f" = {total:8.3f} s of {duration:8.3f} s  {'ok' if adds_up else 'DOES NOT ADD UP'}"
    )
    return adds_up


def print_scores(sample: Sample, transcripts: dict[str, dict[str, Any]]) -> None:
    """Error rates per recording and over all words. A recording's text is scored whole."""
    from evaluation.score import score

    names = sorted(set(transcripts) & set(sample.texts))
    if not names:
        typer.echo("  nothing to score")
        return
    references = [" ".join(sample.texts[name]) for name in names]
    hypotheses = [
        " ".join(segment["text"] or "" for segment in transcripts[name]["segments"]) for name in names
    ]
    typer.echo(f"  {'recording':<32} {'words':>6} {'WER':>7} {'S':>4} {'D':>4} {'I':>4} {'CER':>7}")
    for name, reference, hypothesis in zip(names, references, hypotheses, strict=True):
        _print_score(name, score([reference], [hypothesis]))
    _print_score("all words together", score(references, hypotheses))


def _print_score(name: str, result: Score) -> None:
    words = result.wer.counts
    typer.echo(
        f"  {name:<32} {words.reference_length:>6} {result.wer.value:>7.1%} {words.substitutions:>4} "
        f"{words.deletions:>4} {words.insertions:>4} {result.cer.value:>7.1%}"
    )


def show_sql() -> None:
    """Run one query on the contract that analysts use, and print its rows."""
    from sqlalchemy import text

    from cli.database import database

    heading("The same as SQL, in schema `archive`")
    typer.echo("\n".join(f"  {line}" for line in SQL_QUERY.splitlines()) + "\n")
    with database() as engine, engine.connect() as connection:
        result = connection.execute(text(SQL_QUERY))
        print_table(list(result.keys()), [tuple(row) for row in result])


def print_table(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows as psql prints them."""
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells), 0) for i, column in enumerate(columns)]
    typer.echo("  " + " | ".join(column.center(width) for column, width in zip(columns, widths, strict=True)))
    typer.echo("  " + "-+-".join("-" * width for width in widths))
    for row, values in zip(cells, rows, strict=True):
        shown = [
            cell.ljust(width) if isinstance(value, str) else cell.rjust(width)
            for cell, value, width in zip(row, values, widths, strict=True)
        ]
        typer.echo("  " + " | ".join(shown))
    typer.echo(f"  ({len(rows)} rows)")
