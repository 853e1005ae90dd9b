"""How fast and in how much memory recordings are split, beside the way of a pydub user.

    python -m tests.benchmarks.media [--minutes 60] [--hours 12] [--formats mp3 wav] [--folder DIR] [--json FILE]

Recordings of speech with pauses are made in five formats. Then, for each, the whole way of a media worker (decoding in
a process of its own, speech, cuts, working copy, peaks) and the pydub way (`AudioSegment.from_file`, 16 kHz mono,
`split_on_silence` with its defaults, silence being 16 dB below the recording's mean) run after one another, each in a
process of its own: ours twice, pydub's, and ours three times more, so that a disturbed moment does not decide about our
few seconds beside pydub's ninety. At last one file of many hours, made by repeating packets, goes our way alone.

- CPU seconds are user and system, of the process itself and of those it starts (the decoder; ffmpeg), without imports.
- xRT is seconds of audio per second: per core, of CPU seconds; wall, of the clock's, which other work slows.
- Of our runs the median by CPU seconds counts, with the greatest peaks of all; `runs` in the table is from where
  to where they went.
- Peak memory is VmHWM of the process and the greatest of those it starts, summed, with Python and all libraries: an
  upper bound, as libraries that both use count twice, and the one that the bounds in MB are about. `together` is what
  they were seen to hold at one time with shared pages counted once (Pss), which is what the machine had to give; by
  it ours is compared with pydub's, and by the sums as well, without an aim. MB are 10^6 bytes.
- pydub needs ffmpeg: the system's, or that of `pip install imageio-ffmpeg`. Without, it reads wav alone, and the other
  formats are compared with that row, which spares pydub their decoding.

`--folder` keeps the recordings (2.4 GB) for another run. The exit code is 1 where an aim is missed; the last table says
which.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.aim import Aim
from tests.benchmarks.media_recordings import (
    FORMATS,
    by_name,
    made_long_recording,
    made_recording,
)
from tests.benchmarks.media_ways import ffmpeg_program, measured_environment
from tests.benchmarks.watched_process import CommandFailed, run_watched

MB = 10**6
AIM_XRT_PER_CORE = 400.0
"""On mp3."""
AIM_PEAK_MB = 200.0
AIM_LONG_PEAK_MB = 300.0
AIM_TIMES_PYDUB = 10.0
"""As fast, and less memory."""
RUNS_BEFORE, RUNS_AFTER = 2, 3
"""Of our way on each recording, pydub's between them."""
LONG = "long"


@dataclass(frozen=True)
class Row:
    """One way on one recording."""

    format: str
    way: str
    audio_s: float
    n_segments: int
    cpu_self_s: float
    cpu_children_s: float
    wall_s: float
    peak_self_mb: float
    peak_children_mb: float
    peak_together_mb: float
    runs_xrt_per_core: tuple[float, ...] = ()
    """Of all runs, where this is the median of several."""

    @property
    def xrt_per_core(self) -> float:
        return self.audio_s / (self.cpu_self_s + self.cpu_children_s)

    @property
    def xrt_wall(self) -> float:
        return self.audio_s / self.wall_s

    @property
    def peak_mb(self) -> float:
        return self.peak_self_mb + self.peak_children_mb


@dataclass(frozen=True)
class Failed:
    """A way that could not read a recording."""

    format: str
    way: str
    reason: str


@dataclass(frozen=True)
class Beside:
    """Ours beside pydub on one format."""

    format: str
    pydub_format: str
    """Which recording pydub read: another where it cannot read this one."""
    times_as_fast: float
    """Per core."""
    times_as_fast_by_the_clock: float
    """Ours decodes and listens on two cores at once."""
    times_less_memory: float
    """Held at one time, shared pages once."""
    times_less_memory_by_sums: float
    """By the sums of peaks."""


def make_all(folder: Path, names: Sequence[str], minutes: float, seed: int, long: tuple[str, float]) -> None:
    """Every recording, two at a time."""
    long_name, hours = long
    began = time.monotonic()
    wanted = [one.name for one in FORMATS if one.name in names or (hours and one.name == long_name)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for made in [pool.submit(made_recording, folder, name, minutes, seed) for name in wanted]:
            made.result()
        if hours:
            pool.submit(made_long_recording, folder, long_name, minutes, seed, hours).result()
    print(f"recordings made in {time.monotonic() - began:.0f} s", file=sys.stderr)


def run_way(
    way: str, name: str, path: Path, *, minutes: float | None = None, ffmpeg: str | None = None
) -> Row | Failed:
    """One way on one recording, in a process of its own; pydub with `ffmpeg` and on so many `minutes` of it."""
    command = [sys.executable, "-m", "tests.benchmarks.media_ways", way, str(path)]
    if way == "pydub":
        command += ["--decoder", by_name(name).decoder]
        command += ["--minutes", str(minutes)] if minutes else []
        command += ["--ffmpeg", ffmpeg] if ffmpeg else []
    with tempfile.TemporaryFile() as errors:
        try:
            watched = run_watched(command, environment=measured_environment(), errors=errors)
        except CommandFailed as error:
            return Failed(name, way, str(error).splitlines()[-1])
    return Row(
        name,
        way,
        **watched.report,
        peak_self_mb=watched.peak_bytes / MB,
        peak_children_mb=watched.peak_child_bytes / MB,
        peak_together_mb=watched.peak_together_bytes / MB,
    )


def median_run(runs: Sequence[Row | Failed]) -> Row | Failed:
    """The middle one of several runs of one way by CPU seconds, with the greatest peaks of all; a failure if one is."""
    rows = sorted((row for row in runs if isinstance(row, Row)), key=lambda row: row.xrt_per_core)
    if len(rows) < len(runs):
        return next(row for row in runs if isinstance(row, Failed))
    return replace(
        rows[len(rows) // 2],
        peak_self_mb=max(row.peak_self_mb for row in rows),
        peak_children_mb=max(row.peak_children_mb for row in rows),
        peak_together_mb=max(row.peak_together_mb for row in rows),
        runs_xrt_per_core=tuple(row.xrt_per_core for row in rows),
    )


def beside_pydub(rows: Sequence[Row]) -> list[Beside]:
    """Each of our rows beside pydub's on the same format, or on wav where pydub could not read it."""
    pydub = {row.format: row for row in rows if row.way == "pydub"}
    found = []
    for row in rows:
        other = pydub.get(row.format) or pydub.get("wav")
        if row.way == "ours" and row.format != LONG and other is not None:
            found.append(
                Beside(
                    row.format,
                    other.format,
                    row.xrt_per_core / other.xrt_per_core,
                    row.xrt_wall / other.xrt_wall,
                    other.peak_together_mb / row.peak_together_mb,
                    other.peak_mb / row.peak_mb,
                )
            )
    return found


def check_aims(rows: Sequence[Row | Failed], beside: Sequence[Beside]) -> list[Aim]:
    """What was aimed at, of that which was measured. A recording that our way cannot read is a miss."""
    aims = [
        Aim(f"{row.format} is split", "it is", row.reason, met=False)
        for row in rows
        if isinstance(row, Failed) and row.way == "ours"
    ]
    for row in rows:
        if isinstance(row, Failed) or row.way != "ours":
            continue
        if row.format == "mp3":
            found = f"{row.xrt_per_core:.0f} xRT"
            wanted = f">= {AIM_XRT_PER_CORE:.0f} xRT"
            aims.append(Aim("mp3: speed per core", wanted, found, row.xrt_per_core >= AIM_XRT_PER_CORE))
        bound = AIM_LONG_PEAK_MB if row.format == LONG else AIM_PEAK_MB
        label = f"{row.audio_s / 3600:.3g} h" if row.format == LONG else row.format
        wanted = f"<= {bound:.0f} MB"
        aims.append(Aim(f"{label}: peak memory", wanted, f"{row.peak_mb:.0f} MB", row.peak_mb <= bound))
    for one in beside:
        than = "pydub" if one.format == one.pydub_format else f"pydub on {one.pydub_format}"
        for what, times in (("as fast as", one.times_as_fast), ("less memory than", one.times_less_memory)):
            wanted, found = f">= {AIM_TIMES_PYDUB:.0f} x", f"{times:.1f} x"
            aims.append(Aim(f"{one.format}: {what} {than}", wanted, found, times >= AIM_TIMES_PYDUB))
    return aims


def print_tables(rows: Sequence[Row | Failed], beside: Sequence[Beside], aims: Sequence[Aim]) -> None:
    print(
        f"{'recording':<10}{'way':<7}{'audio min':>10}{'CPU s self':>11}{'children':>9}{'xRT/core':>9}{'runs':>9}"
        f"{'xRT wall':>9}{'MB self':>9}{'child':>7}{'sum':>7}{'together':>10}{'segments':>9}"
    )
    for row in rows:
        if isinstance(row, Failed):
            print(f"{row.format:<10}{row.way:<7}cannot read it: {row.reason}")
            continue
        runs = (
            f"{row.runs_xrt_per_core[0]:.0f}-{row.runs_xrt_per_core[-1]:.0f}" if row.runs_xrt_per_core else ""
        )
        print(
            f"{row.format:<10}{row.way:<7}{row.audio_s / 60:>10.1f}{row.cpu_self_s:>11.1f}{row.cpu_children_s:>9.1f}"
            f"{row.xrt_per_core:>9.0f}{runs:>9}{row.xrt_wall:>9.0f}{row.peak_self_mb:>9.0f}{row.peak_children_mb:>7.0f}"
            f"{row.peak_mb:>7.0f}{row.peak_together_mb:>10.0f}{row.n_segments:>9}"
        )
    print()
    for one in beside:
        print(
            f"{one.format}: {one.times_as_fast:.1f} times as fast as pydub on {one.pydub_format} per core, "
            f"{one.times_as_fast_by_the_clock:.1f} times by the clock; {one.times_less_memory:.1f} times less memory "
            f"with shared pages once, {one.times_less_memory_by_sums:.1f} times by the sums of peaks"
        )
    print()
    print(f"{'aim':<40}{'wanted':>12}{'found':>12}  met")
    for aim in aims:
        print(f"{aim.what:<40}{aim.wanted:>12}{aim.found:>12}  {'yes' if aim.met else 'NO'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [one.name for one in FORMATS]
    parser.add_argument("--minutes", type=float, default=60.0, help="of each recording")
    parser.add_argument("--pydub-minutes", type=float, help="of it that pydub reads; unset: all, 0: none")
    parser.add_argument("--hours", type=float, default=12.0, help="of the long recording; 0: none")
    parser.add_argument("--long-format", choices=("mp3", "m4a"), default="mp3")
    parser.add_argument("--formats", nargs="+", choices=names, default=names)
    parser.add_argument("--folder", type=Path, help="for the recordings, kept; unset: a temporary one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write the result to")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fonoteca-media-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = measure(arguments, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    measured = [row for row in rows if isinstance(row, Row)]
    beside = beside_pydub(measured)
    aims = check_aims(rows, beside)
    if arguments.json:
        content = {
            "minutes": arguments.minutes,
            "seed": arguments.seed,
            "ffmpeg": ffmpeg_program() is not None,
            "rows": [
                asdict(row)
                | {"xrt_per_core": row.xrt_per_core, "xrt_wall": row.xrt_wall, "peak_mb": row.peak_mb}
                for row in measured
            ],
            "failed": [asdict(row) for row in rows if isinstance(row, Failed)],
            "beside_pydub": [asdict(one) for one in beside],
            "aims": [asdict(aim) for aim in aims],
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    print_tables(rows, beside, aims)
    return 0 if all(aim.met for aim in aims) else 1


def measure(arguments: argparse.Namespace, folder: Path) -> list[Row | Failed]:
    """All ways on all recordings, one after another."""
    minutes, seed = arguments.minutes, arguments.seed
    make_all(folder, arguments.formats, minutes, seed, (arguments.long_format, arguments.hours))
    pydub_minutes = minutes if arguments.pydub_minutes is None else arguments.pydub_minutes
    part = pydub_minutes if pydub_minutes < minutes else None
    ffmpeg = ffmpeg_program()
    rows: list[Row | Failed] = []
    for name in arguments.formats:
        path = made_recording(folder, name, minutes, seed)
        print(f"{name}: {path.stat().st_size / MB:.0f} MB, {by_name(name).about}", file=sys.stderr)
        ours = [run_way("ours", name, path) for _ in range(RUNS_BEFORE)]
        theirs: list[Row | Failed] = []
        if pydub_minutes and name != "wav" and ffmpeg is None:
            theirs.append(Failed(name, "pydub", "there is no ffmpeg (pip install imageio-ffmpeg)"))
        elif pydub_minutes:
            theirs.append(run_way("pydub", name, path, minutes=part, ffmpeg=ffmpeg))
        ours += [run_way("ours", name, path) for _ in range(RUNS_AFTER)]
        rows += [median_run(ours), *theirs]
    if arguments.hours:
        path = made_long_recording(folder, arguments.long_format, minutes, seed, arguments.hours)
        found = run_way("ours", arguments.long_format, path)
        if isinstance(found, Row):
            rows.append(Row(**(asdict(found) | {"format": LONG})))
        else:
            rows.append(Failed(LONG, found.way, found.reason))
    return rows


if __name__ == "__main__":
    sys.exit(main())
