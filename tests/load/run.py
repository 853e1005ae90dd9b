"""The load run itself: submit, watch, and look at what is there when all is over."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from cli.client import ApiClient
from cli.stack import make_key
from compose.local.folders import temporary_home
from compose.local.services import API, BEAT, GPU_WORKER, MEDIA_WORKER, QUALITY_WORKER, ServiceSpec
from compose.local.stack import Stack
from db.connect import make_engine
from db.settings import PROJECT_ROOT
from speech.audio import SAMPLE_RATE_HZ
from tests.chaos import checks
from tests.chaos.submission import BROADCASTERS, Submission
from tests.chaos.system import DEMO_MODEL, System, numbered
from tests.load.logs import Line, above_info
from tests.load.measure import WARM_UP_S, Growth, Sample, Sampler, growth_of
from tests.load.media import source_of, write_material

LOOK_S = 0.5
REPORT_S = 30.0
SETTLE_S = 120.0
"""What is done behind the work (indexing, the last sweep) has so long."""
STEADY_PERCENT = 5.0
STEADY_AFTER_S = 2 * WARM_UP_S
"""Growth of a shorter run says nothing: its caches are still being filled."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    n_recordings: int = 1_000
    n_media_workers: int = 2
    n_ahead: int = 50
    """Recordings that wait to be split while more are uploaded: uploads go on for the whole run."""
    interval_s: float = 3.0
    limit_s: float = 7_200.0


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    plan: Plan
    wall_s: float
    """From the first upload to the last finished recording."""
    audio_s: float
    n_segments: int
    states: Mapping[str, int]
    growth: Sequence[Growth]
    samples: Sequence[Sample]
    lines: Sequence[Line]
    """Log lines above INFO, expected ones among them."""
    wrong: Sequence[str]
    """Whatever else should not be."""
    log_bytes: Mapping[str, int]

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of wall time."""
        return self.audio_s / self.wall_s

    @property
    def problems(self) -> list[str]:
        """Everything that should not be."""
        grown = [one for one in self.growth if one.percent > STEADY_PERCENT]
        return [
            *self.wrong,
            *(f"{n} x {part} {level} {event}" for (part, level, event), n in self.events.items()),
            *(
                f"{one.part} grew by {one.percent:.1f} %: {one.judged_mib[0]:.1f} to {one.judged_mib[1]:.1f} MiB"
                for one in grown
                if self.wall_s >= STEADY_AFTER_S
            ),
        ]

    @property
    def events(self) -> Counter[tuple[str, str, str]]:
        """Log lines above INFO: how many of each (part, level, event)."""
        return Counter((line.part, line.level, line.event) for line in self.lines if not line.reason)

    @property
    def expected(self) -> Counter[tuple[str, str]]:
        """Log lines that say nothing of the system's doings: how many of each (part, reason)."""
        return Counter((line.part, line.reason) for line in self.lines if line.reason)

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            **asdict(self),
            "rtfx": self.rtfx,
            "problems": self.problems,
            "events": [[*event, n] for event, n in self.events.items()],
            "expected": [[*event, n] for event, n in self.expected.items()],
        }


def services(plan: Plan) -> tuple[ServiceSpec, ...]:
    """Those of `fonoteca up`, with as many media workers as planned, and no model in the GPU worker."""
    arguments = ["tests.load.null_worker" if one == "workers.app" else one for one in GPU_WORKER.arguments]
    media = (numbered(MEDIA_WORKER, number) for number in range(1, plan.n_media_workers + 1))
    return (API, *media, replace(GPU_WORKER, arguments=tuple(arguments)), QUALITY_WORKER, BEAT)


@contextmanager
def running_system(plan: Plan) -> Iterator[System]:
    """A stack with an empty home of its own and the settings of every day; ended, and left to `temporary_home`."""
    with temporary_home("fonoteca-load-") as home:
        values = {
            "FONOTECA_HOME": str(home),
            "FONOTECA_MODEL": str(DEMO_MODEL),
            "OMP_NUM_THREADS": "1",
            # the null worker is no part of what is installed
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")])),
        }
        with mock.patch.dict(os.environ, values), Stack(home, services=services(plan)) as stack:
            engine = make_engine(stack.database_url, application_name="load")
            try:
                yield System(stack, engine)
            finally:
                engine.dispose()


def run(plan: Plan, say: Say, logs_to: Path | None = None) -> Outcome:
    """The whole of it."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"making {plan.n_recordings} recordings")
        material = write_material(Path(folder), plan.n_recordings)
        with running_system(plan) as system:
            pids = system.stack.pids
            with Submission(system, material, name="load") as submission, _Reader(system) as reader:
                sampler = Sampler(system, plan.interval_s, reader.read)
                sampler.start()
                begun = time.monotonic()
                try:
                    is_over = _drive(plan, system, submission, sampler, say)
                    wall_s = time.monotonic() - begun
                finally:
                    sampler.stop()
                system.wait(lambda: not (checks.left_over(system) or checks.orphan_files(system)), SETTLE_S)
                found = checks.told(system, submission.batch_ids)
            wrong = [] if is_over else [f"not over after {plan.limit_s:.0f} s"]
            wrong += _compare(found, plan.n_recordings)
            wrong += [*checks.doubled(system), *checks.left_over(system), *checks.orphan_files(system)]
            attempts = "SELECT outcome, count(*) AS n FROM attempts WHERE outcome <> 'done' GROUP BY 1"
            wrong += [f"{row.n} attempts {row.outcome}" for row in system.query(attempts)]
            restarted = [part for part, pid in system.stack.pids.items() if pids.get(part) != pid]
            wrong += [f"{part} died" for part in restarted]
            system.engine.dispose()  # a server that stops tells in its log whom it cut off
            system.stack.stop()
            wrong += [*checks.scratch_files(system.home), *checks.processes(system.home)]
            logs = sorted((system.home / "logs").glob("*"))
            lines = above_info(logs)
            log_bytes = {path.name: path.stat().st_size for path in logs}
            if logs_to is not None:
                logs_to.mkdir(parents=True, exist_ok=True)
                for path in logs:
                    (logs_to / path.name).write_bytes(path.read_bytes())
    return Outcome(
        plan,
        wall_s,
        sum(one.duration_samples or 0 for one in found.values()) / SAMPLE_RATE_HZ,
        sum(len(one.segments) for one in found.values()),
        dict(Counter(one.state for one in found.values())),
        growth_of(sampler.samples),
        sampler.samples,
        lines,
        wrong,
        log_bytes,
    )


def _drive(plan: Plan, system: System, submission: Submission, sampler: Sampler, say: Say) -> bool:
    """Upload as recordings are taken, until all are finished; False when that took too long."""
    begun = told_at = time.monotonic()
    while time.monotonic() - begun < plan.limit_s:
        submission.raise_errors()
        sampler.raise_error()
        system.stack.supervise()
        n_open = checks.n_open(system, submission.batch_ids)
        if n_open is None:
            time.sleep(LOOK_S)
            continue
        if n_open == 0:
            return True
        n_unfinished = n_open - submission.n_left  # sent, or on their way
        submission.release(max(0, plan.n_ahead - n_unfinished))
        if time.monotonic() - told_at > REPORT_S:
            told_at = time.monotonic()
            say(f"{told_at - begun:6.0f} s: {plan.n_recordings - n_open} of {plan.n_recordings} finished")
        time.sleep(LOOK_S)
    return False


class _Reader:
    """Somebody who looks now and then how far it is, and reads what there is, as submitters do."""

    def __init__(self, system: System) -> None:
        self._clients = [
            ApiClient(system.stack.api_url, make_key(system.engine, broadcaster, "reader"))
            for broadcaster in BROADCASTERS
        ]
        self._lots = random.Random(0)
        self.n_read = 0

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def read(self) -> None:
        """The state of one broadcaster's batches, one finished transcript, one search."""
        client = self._lots.choice(self._clients)
        for batch in client.batches():
            if batch["recording_counts"].get("completed"):
                recordings = list(client.recordings(batch["id"]))
                finished = [one["id"] for one in recordings if one["state"] == "completed"]
                client.transcript(self._lots.choice(finished), self._lots.choice(("json", "srt")))
        client.search({"q": "galicia"})
        self.n_read += 1


def _compare(found: Mapping[str, checks.Told], n_recordings: int) -> list[str]:
    """Every recording is completed, and copies of one file say the same."""
    wrong = [f"{n_recordings - len(found)} recordings are gone"] if len(found) != n_recordings else []
    wrong += [f"{name} is {one.state}" for name, one in found.items() if one.state != "completed"]
    wrong += [f"{name} has no segment" for name, one in found.items() if not one.segments]
    first: dict[str, tuple[str, checks.Told]] = {}
    for name, one in found.items():
        before_name, before = first.setdefault(source_of(name), (name, one))
        if before != one:
            wrong.append(f"{name} says something else than {before_name}, of the same file")
    return wrong
