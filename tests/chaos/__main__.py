"""Does the system lose, double or change anything when everything around it fails?

    python -m tests.chaos [--seeds 1 2 3] [--faults 100] [--recordings 200] [--json FILE] [--logs FOLDER]

Submits short recordings of three broadcasters to a whole system (real PostgreSQL, Valkey, API, workers, the demo model)
without a fault, then again for each seed while its parts are killed, frozen, restarted and robbed of their data. Ends
with 1 when anything differs. The faults are drawn by the seed; when exactly they strike is up to the machine.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from tests.chaos.run import Outcome, Plan, run_calm, run_chaos


def main() -> int:
    """Run, print, and say how it went."""
    arguments = _arguments()
    # each death is a line of ours already; the parts' own words are in their logs (--logs)
    logging.getLogger("compose.local.supervise").setLevel(logging.CRITICAL)
    plan = Plan(arguments.faults, arguments.recordings, arguments.media_workers, arguments.gpu_workers)

    def say(line: str) -> None:
        print(line, flush=True)

    logs: Path | None = arguments.logs
    calm = run_calm(plan, say, logs and logs / "calm")
    outcomes = []
    for seed in arguments.seeds:
        say(f"seed {seed}: {plan.n_faults} faults")
        outcome = run_chaos(plan, calm, seed, say, logs and logs / f"seed-{seed}")
        outcomes.append(outcome)
        _print(outcome)
        if arguments.json:
            with arguments.json.open("a", encoding="utf-8") as file:
                file.write(outcome.to_json() + "\n")
    _print_table(outcomes)
    return 1 if any(outcome.problems for outcome in outcomes) else 0


def _print(outcome: Outcome) -> None:
    print(
        f"seed {outcome.seed}: {outcome.n_recordings} recordings, {outcome.n_segments} segments, "
        f"{sum(outcome.faults.values())} faults in {outcome.seconds:.0f} s; attempts: "
        + ", ".join(f"{n} {name}" for name, n in outcome.attempts.items())
        + f"; {outcome.n_sent_away} times no room for an upload"
    )
    for name, n in sorted(outcome.faults.items()):
        print(f"  {n:4} {name}")
    for problem in outcome.problems:
        print(f"  WRONG: {problem}")
    sys.stdout.flush()


def _print_table(outcomes: list[Outcome]) -> None:
    print("\n seed  recordings  segments  faults     s  lost  doubled  differing  orphans")
    for one in outcomes:
        counts = (len(one.lost), len(one.doubled), len(one.differing), len(one.left))
        print(
            f"{one.seed:5} {one.n_recordings:11} {one.n_segments:9} {sum(one.faults.values()):7} {one.seconds:5.0f}"
            f"{counts[0]:6} {counts[1]:8} {counts[2]:10} {counts[3]:8}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one run each")
    parser.add_argument("--faults", type=int, default=100, help="in each run")
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--media-workers", type=int, default=3)
    parser.add_argument("--gpu-workers", type=int, default=3)
    parser.add_argument("--json", type=Path, help="append the counts of each run as a line")
    parser.add_argument("--logs", type=Path, help="keep the logs of every part here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
