"""Does the whole system stay as it is while a thousand recordings pass through it?

    python -m tests.load [--recordings 1000] [--json FILE] [--logs FOLDER]

Recordings of one minute of three broadcasters, submitted with the client that people use, through the whole system as
`fonoteca up` runs it, with an engine that writes at once in place of the model. Ends with 1 when anything is lost, left
or differing, when a part's memory grew, or when a log holds a line above INFO: no fault is planted here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.load.measure import percent, warm_thirds
from tests.load.run import Outcome, Plan, run


def main() -> int:
    """Run, print, and say how it went."""
    arguments = _arguments()
    plan = Plan(arguments.recordings, arguments.media_workers)
    outcome = run(plan, lambda line: print(line, flush=True), arguments.logs)
    _print(outcome)
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome.as_json(), ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if outcome.problems else 0


def _print(outcome: Outcome) -> None:
    states = ", ".join(f"{n} {state}" for state, n in sorted(outcome.states.items()))
    per_s = sum(outcome.states.values()) / outcome.wall_s
    print(
        f"\n{states}; {outcome.n_segments} segments; {outcome.audio_s / 3600:.2f} h of audio in "
        f"{outcome.wall_s:.0f} s: RTFx {outcome.rtfx:.1f}, {per_s:.2f} recordings/s"
    )
    print("\nMiB, once warm: median of the first third, of the last, and growth\n")
    print(f"{'part':16}{'processes':>10}{'resident':>24}{'shares divided':>24}{'anonymous':>24}{'peak':>8}")
    for one in outcome.growth:
        pairs = "".join(
            f"{first:8.1f}{last:8.1f}{percent((first, last)):+6.1f} %"
            for first, last in (one.rss_mib, one.pss_mib, one.anonymous_mib)
        )
        print(f"{one.part:16}{one.n_processes:10}{pairs}{one.peak_pss_mib:8.1f}")
    print("\nmedians of the same thirds")
    for name in ("n_unsplit", "n_splitting", "n_untranscribed", "n_transcribing"):
        values = [sorted(getattr(one, name) for one in third) for third in warm_thirds(outcome.samples)]
        print(f"  {name:16}" + "".join(f"{found[len(found) // 2]:6}" for found in values))
    print(f"\nlog lines above INFO: {sum(outcome.events.values())}")
    for (part, reason), n in sorted(outcome.expected.items()):
        print(f"  not counted: {n} of {part}, {reason}")
    for problem in outcome.problems:
        print(f"WRONG: {problem}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recordings", type=int, default=1_000)
    parser.add_argument("--media-workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--logs", type=Path, help="keep the logs of every part here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
