"""One run: the same recordings without faults and with them, and what differs."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import checks
from tests.chaos.faults import ALL, Fault, Scene
from tests.chaos.media import write_material
from tests.chaos.submission import Submission
from tests.chaos.system import System, running_system

PATIENCE_S = 6.0
"""A fault that finds nothing in hand strikes all the same after so long."""
MEAN_PAUSE_S = 1.5
CALM_LIMIT_S = 900.0
END_LIMIT_S = 1800.0
SETTLE_S = 60.0
"""What is done behind the work (indexing, the last sweep) has so long."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    n_faults: int = 100
    n_recordings: int = 200
    n_media_workers: int = 3
    n_gpu_workers: int = 3


@dataclass
class Outcome:
    """What a run with faults came to."""

    seed: int
    n_recordings: int
    n_segments: int
    seconds: float
    faults: Counter[str]
    attempts: Mapping[str, int]
    n_sent_away: int = 0
    """Times that an upload was told that there is no room, and came again."""
    lost: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Orphans: rows, claims, files, processes."""

    @property
    def problems(self) -> list[str]:
        """Everything that should not be."""
        return [*self.lost, *self.differing, *self.doubled, *self.left]

    def to_json(self) -> str:
        """One line for a program."""
        return json.dumps(self.__dict__ | {"faults": dict(self.faults)}, ensure_ascii=False)


def run_calm(plan: Plan, say: Say, logs_to: Path | None = None) -> dict[str, checks.Told]:
    """The recordings through the system without a fault: what it says of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_system(1, 1, logs_to=logs_to) as system,
        Submission(system, write_material(Path(folder), plan.n_recordings), name="calm") as submission,
    ):
        submission.release(plan.n_recordings)
        _wait_for_the_end(system, submission, CALM_LIMIT_S)
        calm = checks.told(system, submission.batch_ids)
    say(f"without faults: {_count_states(calm)}")
    return calm


def run_chaos(
    plan: Plan, calm: Mapping[str, checks.Told], seed: int, say: Say, logs_to: Path | None = None
) -> Outcome:
    """The recordings through the system with faults, compared with `calm`."""
    lots = random.Random(seed)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        material = write_material(Path(folder), plan.n_recordings)
        with (
            running_system(plan.n_media_workers, plan.n_gpu_workers, logs_to=logs_to) as system,
            Submission(system, material, name=f"chaos {seed}") as submission,
        ):
            struck = _strike(plan, Scene(system, submission, lots), say)
            submission.release(submission.n_left)
            _wait_for_the_end(system, submission, END_LIMIT_S)
            system.wait(
                lambda: not (system.thaws or checks.left_over(system) or checks.orphan_files(system)),
                SETTLE_S,
            )
            found = checks.told(system, submission.batch_ids)
            attempts = {
                row.outcome: row.n
                for row in system.query("SELECT outcome, count(*) AS n FROM attempts GROUP BY 1 ORDER BY 1")
            }
            outcome = Outcome(
                seed,
                len(found),
                sum(len(one.segments) for one in found.values()),
                0,
                struck,
                attempts,
                submission.n_sent_away,
                doubled=checks.doubled(system),
                left=[*checks.left_over(system), *checks.orphan_files(system)],
                **checks.differences(calm, found),
            )
            home = system.home
            system.stack.stop()
            outcome.left += [*checks.scratch_files(home), *checks.processes(home)]
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def _strike(plan: Plan, scene: Scene, say: Say) -> Counter[str]:
    """Faults at random until there were enough, with work coming in all the while."""
    struck: Counter[str] = Counter()
    while (n_struck := sum(struck.values())) < plan.n_faults:
        # half of them before the first fault that matters, the rest as the faults go on
        due = plan.n_recordings * (n_struck + 1) // plan.n_faults
        scene.submission.release(max(0, due - (plan.n_recordings - scene.submission.n_left)))
        fault = _draw(scene.lots)
        scene.system.wait(lambda fault=fault: fault.is_ripe(scene), PATIENCE_S)  # type: ignore[misc]
        done = fault.strike(scene)
        if done is not None:
            struck[fault.name] += 1
            say(f"{n_struck + 1:4} {fault.name}: {done}")
        pause_s = min(scene.lots.expovariate(1 / MEAN_PAUSE_S), 4 * MEAN_PAUSE_S)
        until = time.monotonic() + pause_s
        scene.system.wait(lambda until=until: time.monotonic() >= until, pause_s + 1)  # type: ignore[misc]
    return struck


def _draw(lots: random.Random) -> Fault:
    return lots.choices(ALL, [fault.weight for fault in ALL])[0]


def _wait_for_the_end(system: System, submission: Submission, limit_s: float) -> None:
    def is_over() -> bool:
        submission.raise_errors()
        return not submission.is_sending and checks.n_open(system, submission.batch_ids) == 0

    system.wait(is_over, limit_s)


def _count_states(found: Mapping[str, checks.Told]) -> str:
    states = Counter(one.state for one in found.values())
    segments = sum(len(one.segments) for one in found.values())
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) + f"; {segments} segments"
