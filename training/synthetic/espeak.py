"""espeak-ng as a library: phonemes in, samples and the time of each phoneme out.

espeak-ng 1.51 is Debian's package `espeak-ng` (`apt-get install espeak-ng`), GPL-3: used to make training audio and
nothing else, by a library call in a process of its own.
"""

from __future__ import annotations

import ctypes as c
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from training.synthetic.pronunciation import SILENCE, phoneme_of_event

__all__ = ["Delivery", "EspeakMissing", "Speech", "Voice", "espeak_version", "speak"]

SAMPLE_RATE_HZ = 16_000
LIBRARY = "libespeak-ng.so.1"
_AUDIO_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 1, 0x8000
_CHARS_UTF8, _PHONEMES_IN_BRACKETS = 1, 0x100
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7

Samples = npt.NDArray[np.float32]


class EspeakMissing(RuntimeError):
    """espeak-ng cannot be used: says why, and what to install."""


@dataclass(frozen=True)
class Voice:
    """One of espeak-ng's phoneme tables spoken by one of its voice variants; written `es+f2`."""

    table: str
    variant: str

    def __str__(self) -> str:
        return f"{self.table}+{self.variant}"

    @classmethod
    def parse(cls, written: str) -> Voice:
        """From `es+f2`.

        Raises:
            ValueError: it has no plus sign.
        """
        table, plus, variant = written.partition("+")
        if not (table and plus and variant):
            raise ValueError(f"{written!r} is no voice: write a table and a variant, such as es+f2")
        return cls(table, variant)


@dataclass(frozen=True)
class Delivery:
    """How a voice speaks."""

    words_per_minute: int = 160
    pitch: int = 50
    """0 to 99; 50 is the voice's own."""
    pitch_range: int = 50
    """0 to 100: 0 is monotone."""
    word_gap_10ms: int = 0


@dataclass(frozen=True)
class Speech:
    """float32 samples at 16 kHz, and the phonemes with the time at which each ends."""

    samples: Samples
    phonemes: tuple[str, ...]
    phoneme_ends_ms: tuple[int, ...]


class _Identity(c.Union):
    _fields_ = (("number", c.c_int), ("name", c.c_char_p), ("string", c.c_char * 8))


class _Event(c.Structure):
    _fields_ = (
        ("type", c.c_int),
        ("unique_identifier", c.c_uint),
        ("text_position", c.c_int),
        ("length", c.c_int),
        ("audio_position", c.c_int),
        ("sample", c.c_int),
        ("user_data", c.c_void_p),
        ("id", _Identity),
    )


_Callback = c.CFUNCTYPE(c.c_int, c.POINTER(c.c_short), c.c_int, c.POINTER(_Event))


class _Library:
    """The library, opened once in a process: it keeps its state in globals."""

    def __init__(self) -> None:
        try:
            self._library: Any = c.CDLL(LIBRARY)
        except OSError as error:
            raise EspeakMissing(
                f"{LIBRARY} cannot be loaded ({error}): install espeak-ng, on Debian with apt-get install espeak-ng"
            ) from error
        self._libc: Any = c.CDLL(None)
        self.rate_hz = int(
            self._library.espeak_Initialize(_AUDIO_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT)
        )
        if self.rate_hz <= 0:
            raise EspeakMissing("espeak-ng finds no data of its own: reinstall espeak-ng and espeak-ng-data")
        self._library.espeak_Synth.argtypes = [
            *(c.c_char_p, c.c_size_t, c.c_uint, c.c_int, c.c_uint, c.c_uint, c.c_void_p, c.c_void_p)
        ]
        self._library.espeak_Info.restype = c.c_char_p
        self._blocks: list[bytes] = []
        self._events: list[tuple[str, int]] = []
        self._callback = _Callback(self._received)  # kept: the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def version(self) -> str:
        return str(self._library.espeak_Info(None).decode())

    def _received(self, wave: Any, n_samples: int, events: Any) -> int:
        if n_samples > 0:
            self._blocks.append(c.string_at(wave, 2 * n_samples))
        index = 0
        while events[index].type != _EVENT_END:
            if events[index].type == _EVENT_PHONEME:
                self._events.append((events[index].id.string.decode(), events[index].sample))
            index += 1
        return 0

    def speak(
        self, marked: str, voice: Voice, delivery: Delivery, seed: int
    ) -> tuple[npt.NDArray[np.int16], list[tuple[str, int]]]:
        """int16 samples at the library's rate, and phoneme events with the sample at which each begins."""
        self._blocks, self._events = [], []
        # Set for each clip: a voice's pitch and the noise generator's state last from clip to clip otherwise.
        if self._library.espeak_SetVoiceByName(str(voice).encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}: see espeak-ng --voices and --voices=variant")
        for parameter, value in (
            (_RATE, delivery.words_per_minute),
            (_PITCH, delivery.pitch),
            (_RANGE, delivery.pitch_range),
            (_WORD_GAP, delivery.word_gap_10ms),
            (_VOLUME, 100),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._libc.srand(seed & 0x7FFFFFFF)
        content = marked.encode() + b"\0"
        flags = _CHARS_UTF8 | _PHONEMES_IN_BRACKETS
        if self._library.espeak_Synth(content, len(content), 0, 1, 0, flags, None, None) != 0:
            raise RuntimeError(f"espeak-ng failed to speak {marked[:80]!r} with {voice}")
        return np.frombuffer(b"".join(self._blocks), dtype=np.int16), self._events


@functools.cache
def _library() -> _Library:
    return _Library()


def espeak_version() -> str:
    """Such as 1.51.

    Raises:
        EspeakMissing: it is not installed.
    """
    return _library().version()


def speak(marked: str, voice: Voice, delivery: Delivery, *, seed: int = 0) -> Speech:
    """Speak what `pronunciation.espeak_input` wrote.

    The same arguments give the same samples.

    Raises:
        EspeakMissing: espeak-ng is not installed.
        ValueError: there is no such voice.
    """
    library = _library()
    raw, events = library.speak(marked, voice, delivery, seed)
    rate_hz = library.rate_hz
    divisor = int(np.gcd(rate_hz, SAMPLE_RATE_HZ))
    wave = raw.astype(np.float32) / 32768
    samples = resample_poly(wave, SAMPLE_RATE_HZ // divisor, rate_hz // divisor).astype(np.float32)
    phonemes, ends_ms = _timed(events, len(raw), rate_hz)
    return Speech(samples, phonemes, ends_ms)


def _timed(
    events: list[tuple[str, int]], n_samples: int, rate_hz: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of ours with the end of each; pauses that follow each other are one."""
    names: list[str] = []
    ends_ms: list[int] = []
    begins = [sample for _, sample in events[1:]] + [n_samples]
    for (name, _), end in zip(events, begins, strict=True):
        phoneme = phoneme_of_event(name)
        end_ms = round(min(end, n_samples) * 1000 / rate_hz)
        if phoneme is None or (phoneme == SILENCE and names and names[-1] == SILENCE):
            if ends_ms:
                ends_ms[-1] = max(ends_ms[-1], end_ms)
            continue
        names.append(phoneme)
        ends_ms.append(end_ms)
    return tuple(names), tuple(ends_ms)
