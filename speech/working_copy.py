"""The working copy: a recording as 16 kHz mono 16-bit FLAC, of which any span is read back sample for sample.

Written while the recording is split, so the source is decoded once. FLAC because it is lossless, half the size of
wav, plays in browsers, and every frame of it says which sample it starts with: a span is found by a few reads at
guessed positions, without an index and without reading what lies before.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from speech.audio import SAMPLE_RATE_HZ, MediaSource, Samples, open_container, open_source
from speech.cut import Span
from speech.errors import DamagedMedia
from speech.mono import Pcm, as_int16, from_int16
from speech.partial_file import PartialFile

SEEK_BUFFER_BYTES = 32 * 1024
"""Per read when looking for a span: about a second of speech."""
UNSOUGHT_SAMPLES = 8 * 1152
"""The demuxer refuses to seek to the last three of a copy's frames, of 1,152 samples each: it is sent to no place
nearer to the end than this, and copies as short are read whole."""
ENCODER = {"max_prediction_order": "6", "max_partition_order": "3", "lpc_coeff_precision": "12"}
"""A fifth less computing than the encoder's defaults, for a copy that is 1.4 % larger."""


class WorkingCopyWriter(PartialFile):
    """Writes a working copy block by block. A context manager: the file appears at `path` only when all went well."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._container = av.open(str(self._partial), "w", format="flac")
        self._stream = self._container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono", options=ENCODER)
        self._stream.format = "s16"
        self.n_samples = 0

    def write(self, samples: Samples | Pcm) -> None:
        """Append 16 kHz mono samples, shape (n,); beyond [-1, 1) they are clipped."""
        if not len(samples):
            return
        frame = AudioFrame.from_ndarray(as_int16(samples)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = self.n_samples
        self.n_samples += len(samples)
        self._container.mux(self._stream.encode(frame))

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _release(self) -> None:
        self._container.close()


def read_span(source: MediaSource, start_sample: int, end_sample: int) -> npt.NDArray[np.float32]:
    """Samples [start_sample, end_sample) of a working copy, shape (end_sample - start_sample,), float32.

    Raises ValueError for a span that is not within the copy, `DamagedMedia` for a copy that cannot be read.
    """
    return next(read_spans(source, [Span(start_sample, end_sample)]))


def read_spans(source: MediaSource, spans: Iterable[Span]) -> Iterator[npt.NDArray[np.float32]]:
    """The samples of each of `spans`, in the order given, opening the copy once. See `read_span`."""
    with ExitStack() as closing:
        reader = open_source(source, closing)
        try:
            container = open_container(reader, format_name="flac", buffer_bytes=SEEK_BUFFER_BYTES)
        except av.error.FFmpegError as error:
            raise DamagedMedia("working copy", "it cannot be opened") from error
        closing.enter_context(container)
        stream = container.streams.audio[0]
        if not stream.duration:
            raise DamagedMedia("working copy", "it is not a finished FLAC file")
        n_samples = stream.duration
        whole: npt.NDArray[np.float32] | None = None
        for span in spans:
            if not 0 <= span.start_sample < span.end_sample <= n_samples:
                raise ValueError(f"{span} is not within the working copy's {n_samples} samples")
            if n_samples > UNSOUGHT_SAMPLES:
                yield _read(
                    container, stream, span, seek_to=min(span.start_sample, n_samples - UNSOUGHT_SAMPLES)
                )
                continue
            if whole is None:
                whole = _read(container, stream, Span(0, n_samples), seek_to=None)
            yield whole[span.start_sample : span.end_sample].copy()


def _read(
    container: InputContainer, stream: AudioStream, span: Span, *, seek_to: int | None
) -> npt.NDArray[np.float32]:
    """`seek_to` is a sample at or before the span; None reads on, where nothing was read yet."""
    wanted = np.empty(span.n_samples, np.float32)
    n_have = 0
    try:
        if seek_to is not None:
            container.seek(seek_to, stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            skip = span.start_sample + n_have - frame.pts
            if skip < 0:
                break
            if skip >= frame.samples:
                continue
            piece = frame.to_ndarray()[0, skip : skip + span.n_samples - n_have]
            wanted[n_have : n_have + len(piece)] = from_int16(piece.astype(np.int16, copy=False))
            n_have += len(piece)
            if n_have == span.n_samples:
                return wanted
    except av.error.FFmpegError as error:
        raise DamagedMedia(
            "working copy", f"it cannot be decoded around sample {span.start_sample}"
        ) from error
    raise DamagedMedia("working copy", f"samples are missing after sample {span.start_sample + n_have}")
