"""Make the sample archive: what `make demo` transcribes and many tests split.

    python -m training.sample_archive [--speech tests/data/demo-speech] [--out samples]

Four recordings as a broadcaster might hold them, out of synthetic sentences that the demo model has not seen in
training: a news bulletin with music and pauses (mp3), an interview (mp4 with pictures), a street report with noise
(wav), and a tape whose copy broke off (mp4 without its index). `references.json` tells what is said when.

pydub mixes (positions, fades, levels, overlays), PyAV encodes. Everything is seeded; the mix is the same on every
machine, the lossy encodings nearly so.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame

from speech.audio import SAMPLE_RATE_HZ, MediaReader
from speech.mono import to_int16

with warnings.catch_warnings():
    # pydub imports the deprecated audioop, has regular expressions with unknown escapes, and misses an ffmpeg
    # program that is not needed here.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

REPOSITORY = Path(__file__).resolve().parent.parent
SENTENCE_PAUSE_MS = 450
ITEM_PAUSE_MS = 1400
MUSIC_LEVEL_DBFS = -20.0
SPEECH_LEVEL_DBFS = -19.0
NOISE_BELOW_SPEECH_DB = 18.0
DAMAGED_SHARE = 0.6
"""How much of the damaged tape's copy arrived. Its index was to come at the end."""

# Sentences by file number. Items read well one after another; voices are those the demo model has heard, but
# for the interviewer's.
BULLETIN: tuple[tuple[int, ...], ...] = (
    (0,),
    (33, 58, 80, 105),
    (16, 57, 109),
    (34, 37, 104),
    (53, 5, 3, 100),
    (12, 10, 98, 49),
    (97, 32, 93),
    (20, 13, 18, 96, 73, 1),
)
BULLETIN_SECTIONS_AFTER = (0, 3, 4, 5, 6)
"""Items followed by a short jingle instead of a pause."""
INTERVIEW = (102, 85, 14, 45, 70, 37, 54, 77, 110, 69, 46, 109)
"""Alternating, the interviewer (es+m7, a voice the demo model has not heard) first, the guest (es+f2)
second."""
STREET = (96, 24, 80, 104)
TAPE = (0, 33, 34)


@dataclass(frozen=True)
class Said:
    """One sentence in a recording. Times are of the sentence itself, without the pauses around it."""

    start_s: float
    end_s: float
    text: str
    voice: str


@dataclass(frozen=True)
class Recording:
    """One file of the archive. `readable` is false for the damaged one, which has no sentences to find."""

    file: str
    title: str
    programme: str
    date: str
    duration_s: float
    readable: bool
    sentences: tuple[Said, ...]


@dataclass
class Mix:
    """A recording as it grows: 16 kHz mono sound, and what was said at which sample."""

    sound: AudioSegment = field(default_factory=lambda: AudioSegment.silent(0, frame_rate=SAMPLE_RATE_HZ))
    said: list[Said] = field(default_factory=list)

    def add(self, piece: AudioSegment) -> None:
        self.sound += piece

    def pause(self, pause_ms: int) -> None:
        self.add(AudioSegment.silent(pause_ms, frame_rate=SAMPLE_RATE_HZ))

    def say(self, piece: AudioSegment, text: str, voice: str) -> None:
        start = self.sound.frame_count() / SAMPLE_RATE_HZ
        self.add(piece)
        end = self.sound.frame_count() / SAMPLE_RATE_HZ
        self.said.append(Said(round(start, 3), round(end, 3), text, voice))


class Sentences:
    """The source sentences, by number, at speech level."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lines = (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()
        self._rows = {int(row["file"].split(".")[0]): row for row in map(json.loads, lines)}

    def say(self, mix: Mix, number: int) -> None:
        row = self._rows[number]
        with MediaReader(self._folder / row["file"], name=row["file"]) as media:
            samples = np.concatenate([block.samples for block in media.blocks()])
        piece = segment(samples)
        mix.say(piece.apply_gain(SPEECH_LEVEL_DBFS - piece.dBFS), row["text"], row["voice"])


def segment(samples: npt.NDArray[np.float32]) -> AudioSegment:
    """16 kHz mono float32 as a pydub segment."""
    return AudioSegment(to_int16(samples).tobytes(), sample_width=2, frame_rate=SAMPLE_RATE_HZ, channels=1)


def samples_of(sound: AudioSegment) -> npt.NDArray[np.int16]:
    """A pydub segment's samples, shape (n,)."""
    return np.frombuffer(sound.raw_data, np.int16)


def jingle(duration_ms: int, *, root_hz: float, seed: int) -> AudioSegment:
    """Plucked arpeggios over a pad, faded in and out: music to a detector of speech, and nobody's copyright."""
    rng = np.random.default_rng(seed)
    n_samples = duration_ms * SAMPLE_RATE_HZ // 1000
    time_s = np.arange(n_samples) / SAMPLE_RATE_HZ
    scale = np.array([0, 4, 7, 11, 12, 16])
    sound = np.zeros(n_samples)
    for semitones in (0, 7, 12):
        sound += 0.15 * np.sin(2 * np.pi * root_hz / 2 * 2 ** (semitones / 12) * time_s)
    step = SAMPLE_RATE_HZ * 3 // 16
    for index, at in enumerate(range(0, n_samples, step)):
        note_hz = root_hz * 2 ** (scale[(index + int(rng.integers(0, 2))) % len(scale)] / 12)
        local_s = time_s[: n_samples - at]
        decay = np.exp(-5 * local_s)
        for harmonic in range(1, 6):
            sound[at:] += decay * np.sin(2 * np.pi * note_hz * harmonic * local_s) / harmonic**1.5
    piece = segment((sound / np.abs(sound).max() * 0.5).astype(np.float32))
    faded = piece.fade_in(80).fade_out(min(1200, duration_ms // 2))
    return faded.apply_gain(MUSIC_LEVEL_DBFS - faded.dBFS)


def street_noise(duration_ms: int, *, seed: int) -> AudioSegment:
    """Low rumble that swells and falls like traffic, and a little hiss."""
    rng = np.random.default_rng(seed)
    n_samples = duration_ms * SAMPLE_RATE_HZ // 1000 + 1
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequency_hz = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE_HZ)
    spectrum *= 1 / np.maximum(frequency_hz, 60.0) ** 0.8
    noise = np.fft.irfft(spectrum, n_samples)
    swell = 1 + 0.4 * np.sin(2 * np.pi * np.arange(n_samples) / SAMPLE_RATE_HZ / 7)
    noise = noise / np.abs(noise).max() * swell * 0.5
    return segment(noise.astype(np.float32))


def bulletin(sentences: Sentences) -> Mix:
    mix = Mix()
    mix.add(jingle(10_000, root_hz=262, seed=1))
    mix.pause(700)
    for index, item in enumerate(BULLETIN):
        for place, number in enumerate(item):
            if place:
                mix.pause(SENTENCE_PAUSE_MS)
            sentences.say(mix, number)
        if index in BULLETIN_SECTIONS_AFTER:
            mix.pause(600)
            mix.add(jingle(4000, root_hz=(294, 330, 349)[index % 3], seed=10 + index))
            mix.pause(600)
        else:
            mix.pause(ITEM_PAUSE_MS)
    mix.add(jingle(12_000, root_hz=262, seed=2))
    mix.pause(3000)
    return mix


def interview(sentences: Sentences) -> Mix:
    mix = Mix()
    mix.add(jingle(3500, root_hz=220, seed=3))
    mix.pause(800)
    for number in INTERVIEW:
        sentences.say(mix, number)
        mix.pause(600)
    mix.pause(1500)
    return mix


def street(sentences: Sentences) -> Mix:
    mix = Mix()
    mix.pause(1500)
    for number in STREET:
        sentences.say(mix, number)
        mix.pause(550)
    mix.pause(1500)
    noise = street_noise(len(mix.sound) + 10, seed=4)
    mix.sound = mix.sound.overlay(noise.apply_gain(SPEECH_LEVEL_DBFS - NOISE_BELOW_SPEECH_DB - noise.dBFS))
    return mix


def tape(sentences: Sentences) -> Mix:
    mix = Mix()
    for number in TAPE:
        sentences.say(mix, number)
        mix.pause(600)
    return mix


def encode(
    path: Path, sound: AudioSegment, *, codec: str, rate_hz: int, tags: dict[str, str], bit_rate: int | None = None,
    pictures: bool = False,
) -> None:  # fmt: skip
    """Write `sound` to `path`, its container by the suffix; with `pictures`, beside a slow moving pattern."""
    samples = samples_of(sound)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        container.metadata.update(tags)
        video = container.add_stream("libx264", rate=5) if pictures else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
            video.options = {"crf": "38", "g": "50", "threads": "1"}
        audio = container.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(audio, AudioStream)
        if bit_rate is not None:
            audio.bit_rate = bit_rate
        resampler = av.AudioResampler(format=audio.format, layout="mono", rate=rate_hz)
        for second, at in enumerate(range(0, len(samples), SAMPLE_RATE_HZ)):
            if video is not None:
                for picture in range(5):
                    shown = VideoFrame.from_ndarray(_picture(second * 5 + picture), format="gray").reformat(
                        format="yuv420p"
                    )
                    shown.pts = second * 5 + picture
                    container.mux(video.encode(shown))
            frame = AudioFrame.from_ndarray(
                samples[None, at : at + SAMPLE_RATE_HZ], format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ), at
            for resampled in resampler.resample(frame):
                container.mux(audio.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(audio.encode(resampled))
        container.mux(audio.encode(None))
        if video is not None:
            container.mux(video.encode(None))


def _picture(number: int) -> npt.NDArray[np.uint8]:
    """A bar that wanders over a grey ground, shape (90, 160)."""
    picture = np.full((90, 160), 90, np.uint8)
    at = number % 150
    picture[30:60, at : at + 10] = 200
    return picture


def make_archive(speech: Path, out: Path) -> tuple[Recording, ...]:
    """Write the recordings to `out`/archive and `out`/references.json; return what was written."""
    sentences = Sentences(speech)
    archive = out / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    news, talk, noisy, broken = bulletin(sentences), interview(sentences), street(sentences), tape(sentences)
    recordings = (
        _recording("noticias-2026-11-20.mp3", "Noticias das nove", "Informativo", "2026-11-20", news),
        _recording("entrevista-a-debate.mp4", "Entrevista a debate", "A debate", "2026-11-18", talk),
        _recording("rua-con-ruido.wav", "Crónica desde a rúa", "Magazine", "2026-11-19", noisy),
        _recording("cinta-danada.mp4", "Cinta danada", "Arquivo", "1994-03-02", broken, readable=False),
    )
    tags = [{"title": r.title, "album": r.programme, "date": r.date} for r in recordings]
    paths = [archive / r.file for r in recordings]
    encode(paths[0], news.sound, codec="libmp3lame", rate_hz=44100, bit_rate=64000, tags=tags[0])
    encode(paths[1], talk.sound, codec="aac", rate_hz=48000, bit_rate=80000, tags=tags[1], pictures=True)
    encode(paths[2], noisy.sound, codec="pcm_s16le", rate_hz=SAMPLE_RATE_HZ, tags=tags[2])
    encode(paths[3], broken.sound, codec="aac", rate_hz=48000, bit_rate=80000, tags=tags[3], pictures=True)
    whole = paths[3].read_bytes()
    paths[3].write_bytes(whole[: int(len(whole) * DAMAGED_SHARE)])
    text = json.dumps([asdict(r) for r in recordings], ensure_ascii=False, indent=1)
    (out / "references.json").write_text(text + "\n", encoding="utf-8")
    return recordings


def _recording(
    file: str, title: str, programme: str, date: str, mix: Mix, *, readable: bool = True
) -> Recording:
    duration_s = round(mix.sound.frame_count() / SAMPLE_RATE_HZ, 3)
    return Recording(file, title, programme, date, duration_s, readable, tuple(mix.said if readable else ()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.sample_archive", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--speech", type=Path, default=REPOSITORY / "tests" / "data" / "demo-speech")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "samples")
    chosen = parser.parse_args(arguments)
    for recording in make_archive(chosen.speech, chosen.out):
        size_kb = (chosen.out / "archive" / recording.file).stat().st_size // 1024
        sys.stdout.write(f"{recording.file}: {recording.duration_s:.1f} s, {size_kb} kB\n")


if __name__ == "__main__":
    main()
