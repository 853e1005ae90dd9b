"""Ten nights of a made-up broadcaster, through the real system: does it notice what happened, and nothing else?

    python -m tests.ten_nights [--out FOLDER]

An embedded stack with the demo model. Every day six programmes send recordings of synthetic sentences, and a person
corrects what was drawn; every night the held-out sets are measured and a report is written. From the sixth day on the
sound of one programme is degraded (telephone band and noise: drift), on the eighth a worse model is put into service
(regression). Ends with 1 when another verdict than these was given, or one of them is missing.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file
from scipy.signal import butter, sosfilt

from cli.client import ApiClient, NewRecording
from cli.follow import follow_batch
from cli.gather import find_files, hash_file
from cli.output import Output
from cli.stack import local_key
from cli.submit import send_media
from compose.local.folders import temporary_home
from compose.local.stack import Stack
from db.correction_draws import MAX_DRAWN
from db.settings import PROJECT_ROOT
from speech.audio import SAMPLE_RATE_HZ
from tests.demo_speech import Sentence, sentences
from training.sample_archive import SPEECH_LEVEL_DBFS, AudioSegment, Mix, encode, segment

DEMO_MODEL = PROJECT_ROOT / "models" / "demo"
FIRST_NIGHT = dt.date(2026, 3, 2)
PAUSE_MS = 3_000
"""Longer than the splitter joins across: a segment a sentence."""
SETS = {"radio": "radio", "television": "television", "interviews": "interview"}
"""Held-out sets and the kind of programme in them."""
KINDS = {
    "Informativo": "radio",
    "Deportes": "radio",
    "Magazine": "television",
    "Documental": "television",
    "A debate": "interview",
    "Conversas": "interview",
}
"""Programmes and their kinds."""
WORSE_WEIGHTS_NOISE = 0.4
"""Noise on the audio weights of the worse model, in their own standard deviations."""


@dataclass(frozen=True)
class Plan:
    """What happens, and how much material there is."""

    n_nights: int = 10
    degraded_from: int = 6
    degraded_programme: str = "A debate"
    worse_model_from: int = 8
    recordings_a_day: int = 2
    """Of each programme."""
    reference_recordings: int = 8
    """Of each programme, before the first night."""
    sentences_each: int = 4
    held_out_sentences: int = 112


SHORT = Plan(n_nights=3, degraded_from=2, worse_model_from=3, reference_recordings=7)
"""For a test."""


@dataclass
class Said:
    """What is said in one recording, and when."""

    sentences: list[tuple[float, float, str]] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> str:
        """The sentences whose middle lies in a span."""
        return " ".join(text for begin, end, text in self.sentences if start_s <= (begin + end) / 2 < end_s)


def telephone(clip: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """A clip as a bad telephone line brings it: 300 to 3,400 Hz, noise 6 dB below the speech."""
    band = butter(6, [300, 3_400], btype="band", fs=SAMPLE_RATE_HZ, output="sos")
    narrow = sosfilt(band, clip)
    noise = generator.standard_normal(len(clip))
    noise *= np.sqrt((narrow**2).mean() / (noise**2).mean() / 10 ** (6 / 10))
    heard = narrow + noise
    return (heard / max(1.0, float(np.abs(heard).max()))).astype(np.float32)


def write_held_out_sets(folder: Path, n_sentences: int) -> None:
    """Three sets, each sentence in one of them; the voice is the speaker."""
    for number, (name, kind) in enumerate(SETS.items()):
        (folder / name / "clips").mkdir(parents=True)
        rows = []
        for index in range(number, n_sentences, len(SETS)):
            sentence = sentences()[index]
            audio = f"clips/{index:03d}.flac"
            encode(
                folder / name / audio, segment(sentence.clip), codec="flac", rate_hz=SAMPLE_RATE_HZ, tags={}
            )
            rows.append(
                {
                    "id": f"{index:03d}",
                    "audio": audio,
                    "text": sentence.text,
                    "speaker": sentence.voice,
                    "kind": kind,
                }
            )
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / name / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_worse_model(model: Path, folder: Path) -> None:
    """A copy of a model with noise on its audio weights."""
    shutil.copytree(model, folder)
    generator = np.random.default_rng(8)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in sorted(tensors.items()):
            if "audio_embed" in name and tensor.ndim > 1:
                noise = generator.standard_normal(tensor.shape) * tensor.astype(np.float64).std()
                tensors[name] = (tensor + WORSE_WEIGHTS_NOISE * noise).astype(tensor.dtype)
        save_file(tensors, file, metadata={"format": "pt"})


class Days:
    """What is broadcast each day."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._generator = np.random.default_rng(0)
        self._usable: list[Sentence] = [
            sentence for sentence in sentences() if sentence.voice.startswith("es+")
        ]
        self.said: dict[str, Said] = {}

    def write(self, name: str, n_recordings: int, *, degraded: str | None = None) -> Path:
        """The recordings of one day, `n_recordings` of each programme."""
        day = self._folder / name
        day.mkdir(parents=True)
        for programme in KINDS:
            for number in range(n_recordings):
                said, mix = Said(), Mix()
                mix.pause(1_000)
                for index in self._generator.choice(
                    len(self._usable), self._plan.sentences_each, replace=False
                ):
                    sentence = self._usable[index]
                    clip = sentence.clip
                    if programme == degraded:
                        clip = telephone(clip, self._generator)
                    mix.say(level(segment(clip)), sentence.text, sentence.voice)
                    mix.pause(PAUSE_MS)
                said.sentences = [(part.start_s, part.end_s, part.text) for part in mix.said]
                file = f"{programme} {number + 1}.flac"
                encode(day / file, mix.sound, codec="flac", rate_hz=SAMPLE_RATE_HZ, tags={})
                self.said[f"{name}/{file}"] = said
        return day


def level(piece: AudioSegment) -> AudioSegment:
    """Speech at the usual level."""
    return piece.apply_gain(SPEECH_LEVEL_DBFS - piece.dBFS)


class Broadcaster:
    """What the people of one broadcaster do, over HTTP."""

    def __init__(self, client: ApiClient, stack: Stack, days: Days) -> None:
        self._client = client
        self._days = days
        self._http = httpx.Client(
            base_url=stack.api_url,
            headers={"Authorization": f"Bearer {local_key(stack.home)}"},
            timeout=60,
            trust_env=False,
        )

    def submit(self, day: Path) -> None:
        """Send one day's recordings and wait for their transcripts."""
        files = [replace(file, sha256=hash_file(file, lambda _: None)) for file in find_files([day]).files]
        announced: list[NewRecording] = [
            {
                "name": file.name,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "programme": programme_of(file.name),
                "programme_kind": KINDS[programme_of(file.name)],
            }
            for file in files
        ]
        batch, _ = self._client.create_batch(
            name=day.name, priority="normal", recordings=announced, idempotency_key=f"day-{day.name}"
        )
        output = Output(as_json=True)
        failures = send_media(self._client, batch, files, output, is_replay=False, patience_s=60)
        assert not failures, failures
        ended = follow_batch(self._client, batch["id"], output, patience_s=120)
        assert ended["recording_counts"].get("completed") == len(files), ended

    def correct(self) -> int:
        """Draw all segments that are left, and say what is said in them; how many were corrected."""
        n_corrected = 0
        while drawn := self._ask("/v1/correction-draws", {"n": MAX_DRAWN})["items"]:
            corrections = [
                {
                    "segment_id": one["segment_id"],
                    "text": self._days.said[one["recording"]].between(one["start_s"], one["end_s"]),
                    "corrected_by": "Marta",
                }
                for one in drawn
            ]
            n_corrected += self._ask("/v1/corrections", {"items": corrections})["n_stored"]
        return n_corrected

    def _ask(self, path: str, content: dict[str, Any]) -> Any:
        answer = self._http.post(path, json=content)
        assert answer.is_success, answer.text
        return answer.json()


def programme_of(name: str) -> str:
    """`0/A debate 1.flac` -> `A debate`."""
    return Path(name).stem.rsplit(" ", 1)[0]


def fonoteca(*arguments: str | Path) -> Any:
    """What a command prints with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"fonoteca {' '.join(map(str, arguments))}: {done.stderr}")
    return json.loads(done.stdout)


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """An embedded stack that measures the held-out sets in `folder`, and only when it is told to."""
    environment = {
        "FONOTECA_DATASETS": str(folder),
        "FONOTECA_DRIFT_REFERENCE_SEGMENTS": "100",
        "FONOTECA_NIGHT_TIME": far_from_now(),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch, temporary_home("fonoteca-nights-") as home:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("FONOTECA_HOME", str(home))
        patch.delenv("FONOTECA_MODEL", raising=False)
        with Stack(home, durable=False) as stack:
            stack.publish(api_key=local_key(home))
            yield stack


def far_from_now() -> str:
    """A time of day twelve hours away: no night falls due by itself."""
    return (dt.datetime.now(ZoneInfo("Europe/Madrid")) + dt.timedelta(hours=12)).strftime("%H:%M")


@dataclass(frozen=True)
class Night:
    """What one night said."""

    night: dt.date
    verdicts: dict[str, str]
    """`regression radio` -> `ok`."""
    opened: frozenset[str]
    """Alerts opened in it: `drift production`."""
    standouts: tuple[str, ...]
    """Programmes that the drift verdict names, when it is a bad one."""


def live(plan: Plan, out: Path, tell: Callable[[str], None]) -> list[Night]:
    """Live through all nights; reports and verdicts go to `out`."""
    datasets = out / "datasets"
    write_held_out_sets(datasets, plan.held_out_sentences)
    write_worse_model(DEMO_MODEL, out / "worse-model")
    days = Days(plan, out / "media")
    with running_stack(datasets) as stack, ApiClient.connect(stack.api_url) as client:
        people = Broadcaster(client, stack, days)
        people.submit(days.write("before", plan.reference_recordings))
        tell(f"{people.correct()} segments corrected before the first night")
        measure(FIRST_NIGHT - dt.timedelta(days=1))  # what was corrected so far becomes the reference window
        found = []
        for number in range(1, plan.n_nights + 1):
            night = FIRST_NIGHT + dt.timedelta(days=number - 1)
            degraded = plan.degraded_programme if number >= plan.degraded_from else None
            if number == plan.worse_model_from:
                promote_by_force(out / "worse-model")
            people.submit(days.write(f"day {number}", plan.recordings_a_day, degraded=degraded))
            n_corrected = people.correct()
            measure(night)
            found.append(read_night(night))
            write_reports(night, out)
            tell(line(number, n_corrected, found[-1]))
    return found


def measure(night: dt.date) -> None:
    """Run a night and wait until it is settled."""
    fonoteca("night", "run", "--date", night, "--wait")


def promote_by_force(folder: Path) -> None:
    """Put a model into service that was not measured."""
    fonoteca("model", "promote", folder, "--force", "--reason", "a trial of the alarms")


def read_night(night: dt.date) -> Night:
    """Verdicts and alerts of a night, as a person reads them."""
    shown = fonoteca("night", "show", night)
    verdicts = {f"{row['question']} {row['subject']}": row for row in shown["verdicts"]}
    drift = verdicts.get("drift production")
    alerts = fonoteca("alerts", "list", "--all")
    return Night(
        night=night,
        verdicts={name: row["verdict"] for name, row in verdicts.items()},
        opened=frozenset(
            f"{alert['kind']} {alert['subject']}" for alert in alerts if alert["opened_night"] == str(night)
        ),
        standouts=tuple(
            each["name"]
            for each in (drift["evidence"].get("standouts", []) if drift else [])
            if each["kind"] == "programme"
        ),
    )


def write_reports(night: dt.date, out: Path) -> None:
    """Keep the night's pages."""
    folder = out / "reports"
    folder.mkdir(exist_ok=True)
    for language in ("gl", "es", "en"):
        subprocess.run(
            [
                *(sys.executable, "-m", "cli.main", "report", "--date", str(night)),
                *("--language", language, "--out", str(folder / f"{night}.{language}.html")),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def line(number: int, n_corrected: int, night: Night) -> str:
    """One night in one line."""
    said = ", ".join(f"{name} {verdict}" for name, verdict in sorted(night.verdicts.items()))
    opened = f"; opened: {', '.join(sorted(night.opened))}" if night.opened else ""
    named = f" ({', '.join(night.standouts)})" if night.standouts else ""
    return f"night {number:>2}: {n_corrected} corrected; {said}{named}{opened}"


def expected_alerts(plan: Plan, number: int) -> frozenset[str]:
    """The alerts that night `number` must open."""
    expected = set()
    if number == plan.degraded_from:
        expected.add("drift production")
    if number == plan.worse_model_from:
        expected |= {f"regression {name}" for name in SETS}
    return frozenset(expected)


def faults(plan: Plan, nights: Sequence[Night]) -> list[str]:
    """How what was found differs from what happened; empty when it does not."""
    found = []
    for number, night in enumerate(nights, start=1):
        expected = expected_alerts(plan, number)
        if night.opened != expected:
            found.append(f"night {number} opened {sorted(night.opened)}, expected {sorted(expected)}")
        if number == plan.degraded_from and night.standouts != (plan.degraded_programme,):
            found.append(
                f"night {number} names {night.standouts}, expected {plan.degraded_programme!r} alone"
            )
        for name in SETS:
            verdict = night.verdicts.get(f"regression {name}")
            wanted = "regressed" if number >= plan.worse_model_from else "ok"
            if verdict != wanted:
                found.append(f"night {number}: {name} is {verdict}, expected {wanted}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Live through the nights and say what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.ten_nights", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="folder for media, reports and sets; kept")
    parser.add_argument("--short", action="store_true", help="three nights")
    chosen = parser.parse_args(arguments)
    plan = SHORT if chosen.short else Plan()
    with nullcontext(chosen.out) if chosen.out else tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        found = faults(plan, live(plan, out, lambda text: print(text, flush=True)))
    print("\n".join(found) if found else "every night said what had happened, and nothing else")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
