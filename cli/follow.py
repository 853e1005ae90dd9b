"""Following a batch until its work is done, through restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.client import ApiClient, ApiProblem, Batch, Recording, ServerUnreachable
from cli.output import Output, count_text, duration_text, note
from db.states import NoEta, RecordingState

POLL_S = 1.0
LONGEST_POLL_S = 10.0
PLAIN_LINE_EVERY_S = 10.0
PATIENCE_S = 600.0

UNSUCCESSFUL = frozenset({RecordingState.PARTIAL, RecordingState.FAILED, RecordingState.CANCELLED})
"""Finished, and not as the person wished."""


def follow_batch(
    client: ApiClient,
    batch_id: str,
    output: Output | None = None,
    *,
    poll_s: float = POLL_S,
    patience_s: float = PATIENCE_S,
) -> Batch:
    """Show a batch's progress on stderr until all its recordings are finished; the batch as it ended.

    Raises:
        ServerUnreachable, ApiProblem: the server could not answer for `patience_s`, or refuses.
    """
    with progress_shown(output or Output()) as show:
        for batch in snapshots(client, batch_id, poll_s=poll_s, patience_s=patience_s):
            show(batch)
    return batch


def snapshots(
    client: ApiClient, batch_id: str, *, poll_s: float = POLL_S, patience_s: float = PATIENCE_S
) -> Iterator[Batch]:
    """The batch every `poll_s` seconds and when it is finished: the last one. A server that does not answer is
    asked again for `patience_s`."""
    answered_at = time.monotonic()
    wait_s = poll_s
    while True:
        try:
            batch = client.batch(batch_id)
        except (ServerUnreachable, ApiProblem) as error:
            if isinstance(error, ApiProblem) and not error.is_transient:
                raise
            silent_s = time.monotonic() - answered_at
            if silent_s > patience_s:
                raise
            note(f"the server does not answer, asking again (nothing is lost): {error}")
            wait_s = min(wait_s * 2, LONGEST_POLL_S)
        else:
            answered_at, wait_s = time.monotonic(), poll_s
            yield batch
            if batch["finished"]:
                return
        time.sleep(wait_s)


def states_text(batch: Batch) -> str:
    """`3 completed, 1 transcribing`: recordings by state, in the order in which they pass through them."""
    counts = batch["recording_counts"]
    states = ", ".join(f"{counts[state]} {state}" for state in RecordingState if counts.get(state))
    # servers of before do not say it
    return f"{states} (paused)" if batch.get("paused") and not batch["finished"] else states


def progress_text(batch: Batch, *, with_eta: bool = False) -> str:
    """Recordings by state, audio accounted for, segments, and where asked how long it will take, in one line."""
    segments = batch["segment_counts"]
    parts = [states_text(batch)]
    if batch["audio_s"]["total"]:
        done = duration_text(accounted_s(batch))
        parts.append(f"audio {done} of {duration_text(batch['audio_s']['total'])}")
    if any(segments.values()):
        text = f"segments {segments.get('done', 0)} of {sum(segments.values())}"
        failed = segments.get("failed", 0)
        parts.append(f"{text} ({failed} failed)" if failed else text)
    eta = batch.get("eta")
    if with_eta and eta and eta["eta_s"] is not None:
        parts.append(f"done in about {duration_text(eta['eta_s'])}")
    return "; ".join(part for part in parts if part)


NO_ETA = {
    NoEta.PAUSED: "it is paused, or the whole queue is (`fonoteca resume`, or ask the operator)",
    NoEta.AWAITING_MEDIA: "recordings of it are still to be uploaded",
    NoEta.NOT_SPLIT: "recordings of it are still to be read: how long they are is not known yet",
    NoEta.NO_THROUGHPUT: "nothing was transcribed in the last 10 minutes",
}


def eta_text(batch: Batch) -> str | None:
    """When a batch will be done and what that rests on, or why nobody can say; None once it is."""
    eta = batch.get("eta")  # servers of before do not say it
    if not eta:
        return None
    if eta["eta_s"] is None:
        reason = eta["reason"] or ""
        return f"when it will be done: {NO_ETA[NoEta(reason)] if reason in set(NoEta) else reason}"
    return (
        f"done in about {duration_text(eta['eta_s'])}: {duration_text(eta['audio_left_s'])} of audio are left and "
        f"{duration_text(eta['audio_before_s'])} come before, at {eta['rtfx']:.3g} times real time"
    )


def accounted_s(batch: Batch) -> float:
    """Seconds of audio that are transcribed, known to hold no speech, or failed."""
    audio_s = batch["audio_s"]
    return audio_s["transcribed"] + audio_s["no_speech"] + audio_s["failed"]


def recording_line(recording: Recording) -> str:
    """One recording on one line: state, duration, name, and what went wrong."""
    head = f"{recording['state']:<14} {duration_text(recording['duration_s']):>9}  "
    name, trouble = recording["name"], trouble_of(recording)
    if trouble is None:
        return head + name
    return head + (trouble if trouble.startswith(name) else f"{name}: {trouble}")


def trouble_of(recording: Recording) -> str | None:
    """Why a recording failed, or how much of it did; None when nothing is wrong."""
    failure, coverage = recording["failure"], recording["coverage"]
    if failure:
        return failure["reason"]
    if recording["state"] == RecordingState.PARTIAL and coverage:
        return f"{coverage['failed_s']:.1f} s of {duration_text(recording['duration_s'])} could not be transcribed"
    return None


def ended_well(recording: Recording) -> bool:
    """False when a finished recording lacks something."""
    return recording["state"] not in UNSUCCESSFUL


def outcome_text(recordings: list[Recording]) -> str:
    """The last line on finished recordings."""
    n_bad = sum(not ended_well(recording) for recording in recordings)
    total_s = sum(recording["duration_s"] or 0 for recording in recordings)
    text = f"{count_text(len(recordings), 'recording')}, {duration_text(total_s)} of audio"
    return f"{text}: {n_bad} not complete" if n_bad else f"{text}: all complete"


@contextmanager
def progress_shown(output: Output) -> Iterator[Callable[[Batch], None]]:
    """A function that shows a batch: as a moving bar on a terminal, otherwise as a line now and then."""
    if output.live:
        with _bar() as show:
            yield show
    else:
        yield _plain_lines()


def _plain_lines() -> Callable[[Batch], None]:
    """Lines on stderr: when a recording changes its state, and every few seconds while segments move."""
    last_states, last_text, last_at = "", "", 0.0

    def show(batch: Batch) -> None:
        nonlocal last_states, last_text, last_at
        states, text, now = states_text(batch), progress_text(batch, with_eta=True), time.monotonic()
        is_due = states != last_states or batch["finished"] or now - last_at >= PLAIN_LINE_EVERY_S
        if is_due and text != last_text:
            note(text)
            last_states, last_text, last_at = states, text, now

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Batch], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("waiting", total=None)

        def show(batch: Batch) -> None:
            total_s = batch["audio_s"]["total"]
            progress.update(
                task,
                description=progress_text(batch, with_eta=True),
                completed=accounted_s(batch),
                total=total_s or None,
            )

        yield show
