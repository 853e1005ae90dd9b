"""Speech probability per 32 ms window, by silero's network: of a clip as one stream, of a recording in chunks.

`SpeechDetector` is the published model. `RecordingDetector` gives its LSTM no more than seconds of memory, which is
better as well as three times as fast: the LSTM remembers for long, and after noise or music takes faint speech for more
of the same, for whole sentences, which it hears at once when it begins there (docs/decisions/0031, 0032).
"""

from __future__ import annotations

import numpy as np

from speech.silero import WIDTH, WINDOW_SAMPLES, Encoder, Floats, Lstm, quiet_products, weights

__all__ = ["WINDOW_SAMPLES", "RecordingDetector", "SpeechDetector"]

CHUNK_WINDOWS = 96
"""3 s. Always the same, so that rounding does not depend on the caller's blocks."""
RUN_UP_WINDOWS = 24
"""0.8 s before a chunk, by which its LSTM knows what is going on."""
LANES = 8
"""Chunks side by side. With 8 a step of all costs three times a step of one."""


class _Chunks:
    """Audio in any portions to chunks of `CHUNK_WINDOWS`; the last is shorter, filled up with zeros to a window."""

    def __init__(self) -> None:
        self._held: list[Floats] = []
        self._n_held = 0

    def feed(self, samples: Floats) -> list[Floats]:
        """The chunks that are whole now, (windows, 512) each."""
        self._held.append(samples)
        self._n_held += len(samples)
        chunk_samples = CHUNK_WINDOWS * WINDOW_SAMPLES
        if self._n_held < chunk_samples:
            return []
        joined = np.concatenate(self._held)
        n_ready = self._n_held - self._n_held % chunk_samples
        self._held, self._n_held = [joined[n_ready:].copy()], self._n_held - n_ready
        return list(joined[:n_ready].reshape(-1, CHUNK_WINDOWS, WINDOW_SAMPLES))

    def finish(self) -> list[Floats]:
        """The rest, if any."""
        if not self._n_held:
            return []
        rest = np.concatenate(self._held)
        self._held, self._n_held = [], 0
        return [np.pad(rest, (0, -len(rest) % WINDOW_SAMPLES)).reshape(-1, WINDOW_SAMPLES)]


class SpeechDetector:
    """Feed audio in any portions, then `finish`; the probabilities come out in order, one per 512 samples.

    Memory does not grow with the recording. Deterministic, whatever the portions. Digital silence is not computed:
    its chunk gets probability 0 and the state starts anew after it, which is what makes a day of it cheap.
    """

    def __init__(self) -> None:
        model = weights()
        self._encoder = Encoder(model)
        self._lstm = Lstm(model, 1)
        self._chunks = _Chunks()

    def feed(self, samples: Floats) -> Floats:
        """Take 16 kHz mono samples, shape (n,); return the probabilities that are ready, shape (n_windows,)."""
        return _joined([self._probabilities(chunk) for chunk in self._chunks.feed(samples)])

    def finish(self) -> Floats:
        """The probabilities of the rest; its last window is filled up with zeros."""
        return _joined([self._probabilities(chunk) for chunk in self._chunks.finish()])

    def _probabilities(self, chunk: Floats) -> Floats:
        """(n, 512) -> (n,)."""
        if not chunk.any():
            self._encoder.forget()
            self._lstm.forget()
            return np.zeros(len(chunk), np.float32)
        with quiet_products():
            inputs = self._lstm.inputs(self._encoder.encode(chunk))
            return self._lstm.probabilities(self._lstm.run(inputs[:, None]))[:, 0]


class RecordingDetector:
    """`SpeechDetector` for hours: each chunk of 3 s is a stream of its own, which has heard `RUN_UP_WINDOWS` before it.

    Feed audio in any portions, then `finish`; the probabilities come out in order, one per 512 samples, `LANES` chunks
    at a time. Memory does not grow with the recording. Deterministic, whatever the portions. Chunks of digital silence
    get probability 0, and the one after them begins with nothing before it.
    """

    def __init__(self) -> None:
        model = weights()
        self._encoder = Encoder(model)
        self._lstm = Lstm(model, LANES)
        self._chunks = _Chunks()
        self._inputs = np.zeros((RUN_UP_WINDOWS + CHUNK_WINDOWS, LANES, 4 * WIDTH), np.float32)
        """Of each lane: what comes before its chunk, and the chunk."""
        self._run_up: Floats | None = None
        """Of the next chunk; None where it has none."""
        self._lengths: list[int] = []
        """Windows of the chunks that are in lanes, in order."""
        self._silent: list[int] = []
        self._anew: list[int] = []
        """Lanes of digital silence, and lanes without a run-up."""

    def feed(self, samples: Floats) -> Floats:
        """Take 16 kHz mono samples, shape (n,); return the probabilities that are ready, shape (n_windows,)."""
        with quiet_products():
            return _joined([found for chunk in self._chunks.feed(samples) for found in self._take(chunk)])

    def finish(self) -> Floats:
        """The probabilities of the rest; its last window is filled up with zeros."""
        with quiet_products():
            found = [found for chunk in self._chunks.finish() for found in self._take(chunk)]
            return _joined([*found, *self._heard()])

    def _take(self, chunk: Floats) -> list[Floats]:
        """Put (n, 512) into the next lane; the probabilities of all, if that was the last."""
        lane = len(self._lengths)
        self._lengths.append(len(chunk))
        if not chunk.any():
            self._encoder.forget()
            self._run_up = None
            self._silent.append(lane)
        else:
            if self._run_up is None:
                self._anew.append(lane)
            else:
                self._inputs[:RUN_UP_WINDOWS, lane] = self._run_up
            inputs = self._lstm.inputs(self._encoder.encode(chunk))
            self._inputs[RUN_UP_WINDOWS : RUN_UP_WINDOWS + len(chunk), lane] = inputs
            self._run_up = inputs[-RUN_UP_WINDOWS:].copy()
        return self._heard() if len(self._lengths) == LANES else []

    def _heard(self) -> list[Floats]:
        """The probabilities of the chunks in the lanes, which are free then."""
        if not self._lengths:
            return []
        lengths, silent, anew = self._lengths, self._silent, self._anew
        self._lengths, self._silent, self._anew = [], [], []
        if len(silent) == len(lengths):
            return [np.zeros(length, np.float32) for length in lengths]
        self._lstm.forget()
        self._lstm.run(self._inputs[:RUN_UP_WINDOWS])
        self._lstm.forget(anew)
        found = self._lstm.probabilities(self._lstm.run(self._inputs[RUN_UP_WINDOWS:]))
        found[:, silent] = 0
        return [found[:length, lane] for lane, length in enumerate(lengths)]


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
