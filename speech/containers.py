"""What a container says of itself: which formats we read, why one cannot be read, its tags, its declared end.

No audio is decoded here. `speech.audio` asks these questions while it opens and closes a file.
"""

from dataclasses import dataclass
from typing import Protocol

from av.audio.stream import AudioStream
from av.container.input import InputContainer

from speech.errors import DamagedMedia, MediaError, NotMedia, PlaylistRefused, TruncatedMedia
from speech.timecode import read_timecode

# Names of the decoder library's demuxers. Playlists, scripts, subtitles, stills, devices and network formats are
# not among them: those open other files or addresses, or hold no sound.
ALLOWED_FORMATS = (
    "3gp", "aac", "ac3", "act", "aiff", "alaw", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts",
    "dtshd", "dv", "eac3", "flac", "flv", "gsm", "gxf", "lc3", "loas", "m4a", "matroska", "mov", "mp3", "mp4", "mpc",
    "mpc8", "mpeg", "mpegts", "mulaw", "mxf", "nut", "ogg", "oma", "rm", "sox", "spdif", "tak", "truehd", "tta",
    "voc", "w64", "wav", "webm", "wtv", "wv", "xwma",
)  # fmt: skip

# Raw streams carry no timestamps: the demuxer counts packets, so bytes that it skipped do not show in the count.
COUNTED_FORMATS = frozenset({"mp3", "aac", "ac3", "eac3", "amr", "dts", "loas", "truehd"})

# The stream's duration in these comes from a header that counts samples, frames or edit units.
_STREAM_END_FORMATS = frozenset({"mov", "mp4", "flac", "aiff", "au", "mxf", "gxf", "tta", "wv"})

_PLAYLIST_MARKS = (
    b"#extm3u",
    b"ffconcat",
    b"[playlist]",
    b"<mpd",
    b"<smil",
    b"<asx",
    b"<playlist",
    b"[reference]",
)
_MEDIA_MAGIC = (
    b"RIFF",
    b"RF64",
    b"fLaC",
    b"OggS",
    b"\x1aE\xdf\xa3",
    b"ID3",
    b"FORM",
    b"\x06\x0e+4",
    b"0&\xb2u",
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip")

MAX_TAG_CHARACTERS = 500
"""Kept of a tag: it is shown in lists, and a file may hold megabytes of it."""
MIN_RATE_HZ = 2_000
MAX_RATE_HZ = 768_000
MAX_CHANNELS = 48
MIN_CREDIBLE_BIT_RATE = 200
"""bit/s. Below it a declared duration is not backed by the file's size: even silence in FLAC takes about 400."""
MAX_CREDIBLE_S = 48 * 3600
"""A declared duration above this is taken for a broken header."""


class SizedReader(Protocol):
    """What is needed to look at a file's head."""

    size_bytes: int

    def read(self, n_bytes: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


@dataclass(frozen=True)
class MediaInfo:
    """What the container says. Nothing here was checked against the audio itself."""

    container: str
    """The demuxer's name, such as `mp3` or `mov,mp4,m4a,3gp,3g2,mj2`."""
    codec: str
    channels: int
    sample_rate_hz: int
    declared_duration_s: float | None
    """The header's claim, None where it has none."""
    n_audio_tracks: int
    audio_track: int | None
    """The track read, counted from 0 among the audio tracks; None where several were."""
    title: str | None
    programme: str | None
    date: str | None
    """As written in the file: archives hold `2026-11-20`, `2026` and worse."""
    timecode: str | None = None
    """As written in the file: what the clock showed at the first moment."""
    timecode_offset_ms: int | None = None
    """The same in milliseconds since midnight, None where it says nothing (0) or cannot be read."""
    tracks_mixed: tuple[int, ...] = ()
    """The tracks read, where they were several. The other figures are then the first one's."""


def media_info(container: InputContainer, stream: AudioStream) -> MediaInfo:
    """Facts of `stream` within `container`; its tags go before the container's."""
    tags = {key.lower(): value.strip() for key, value in (container.metadata | stream.metadata).items()}

    def tag(*keys: str) -> str | None:
        found = next((tags[key] for key in keys if tags.get(key)), None)
        return None if found is None else found[:MAX_TAG_CHARACTERS]

    duration_s: float | None = None
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / 1_000_000
    tracks = [s.index for s in container.streams.audio]
    context = stream.codec_context
    timecode, timecode_offset_ms = read_timecode(container, stream)
    return MediaInfo(
        container=container.format.name,
        codec=context.name,
        channels=context.channels,
        sample_rate_hz=context.sample_rate,
        declared_duration_s=duration_s,
        n_audio_tracks=len(tracks),
        audio_track=tracks.index(stream.index),
        # the library calls the description of a BWF a comment, and gives `time_reference` for BWF alone
        title=tag("title", "description", *(("comment",) if "time_reference" in tags else ())),
        programme=tag("show", "programme", "program", "album"),
        date=tag("date", "origination_date", "year", "creation_time"),
        timecode=timecode,
        timecode_offset_ms=timecode_offset_ms,
    )


def declared_end_s(container: InputContainer, stream: AudioStream, size_bytes: int) -> float | None:
    """Where the audio must end by a header that is exact, in seconds from its start; None where none is.

    Ogg and MPEG-TS are left out: their figures are estimates from the bytes that are there. Wav is answered by
    `speech.wav`, mp3 by `mp3_declared_s`. A claim that the file's size cannot back is no answer.
    """
    names = set(container.format.name.split(","))
    context = stream.codec_context
    end_s: float | None = None
    if names & _STREAM_END_FORMATS and stream.duration and stream.time_base is not None:
        end_s = float(stream.duration * stream.time_base)
    elif "matroska" in names:
        # The container's duration is its longest track's, often the video's: only the per-track tag is exact.
        end_s = _clock_s(stream.metadata.get("DURATION", ""))
        if end_s is None and len(container.streams) == 1 and container.duration is not None:
            end_s = container.duration / 1_000_000
    elif names & {"avi", "caf"} and context.name.startswith("pcm_") and stream.frames:
        end_s = stream.frames / context.sample_rate  # PCM's unit is the sample, every other codec's its own
    elif "flv" in names and len(container.streams) == 1 and container.duration is not None:
        end_s = container.duration / 1_000_000
    return end_s if end_s is not None and is_credible(end_s, size_bytes) else None


def is_credible(declared_s: float, size_bytes: int) -> bool:
    """Whether a file of this size can hold that much sound."""
    return 0 < declared_s <= MAX_CREDIBLE_S and size_bytes * 8 >= MIN_CREDIBLE_BIT_RATE * declared_s


def mp3_declared_s(reader: SizedReader) -> float | None:
    """Seconds of audio that an mp3's Xing or Info header declares; None if it is no mp3 or has none.

    Most encoders write one: it counts the file's frames, so that a copy that broke off shows. The reader is left
    anywhere. Layout: ISO 11172-3 for the frame header, Gabriel Bouvigne's "MP3 Info Tag" for the tag within.
    """
    reader.seek(_behind_id3(reader))
    frame = reader.read(192)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    is_mpeg1 = frame[1] & 0x18 == 0x18
    is_mono = frame[3] & 0xC0 == 0xC0
    rate_hz = {0: 44_100, 1: 48_000, 2: 32_000}.get((frame[2] >> 2) & 3, 0)
    rate_hz //= {0x18: 1, 0x10: 2, 0x00: 4}.get(frame[1] & 0x18, 1)  # MPEG 1, 2, 2.5
    side_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    info = frame[4 + side_bytes :][:12]
    if info[:4] not in (b"Xing", b"Info") or len(info) < 12 or not info[7] & 1 or not rate_hz:
        return None
    declared_s = int.from_bytes(info[8:12], "big") * (1152 if is_mpeg1 else 576) / rate_hz
    return declared_s if is_credible(declared_s, reader.size_bytes) else None


def is_adts(reader: SizedReader) -> bool:
    """Whether this is raw AAC in ADTS frames (ISO 13818-7). The reader is left anywhere."""
    reader.seek(_behind_id3(reader))
    head = reader.read(2)
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _behind_id3(reader: SizedReader) -> int:
    """Where an ID3v2 tag at the start ends; 0 without one."""
    reader.seek(0)
    tag = reader.read(10)
    if tag[:3] != b"ID3" or len(tag) < 10:
        return 0
    n_bytes = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    return n_bytes + (20 if tag[5] & 0x10 else 10)  # a footer repeats the header


def is_plausible(rate_hz: int, channels: int) -> bool:
    """Whether a recorder may have made a sound track of these figures."""
    return MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and 1 <= channels <= MAX_CHANNELS


def check_plausible(name: str, rate_hz: int, channels: int) -> None:
    """Refuse a sound track that no recorder makes: its figures are damaged, and would cost days or all memory.

    Raises:
        DamagedMedia: names the figure.
    """
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise DamagedMedia(name, f"its header claims a sample rate of {rate_hz} Hz")
    if not is_plausible(rate_hz, channels):
        raise DamagedMedia(name, f"its header claims {channels} channels")


def why_unreadable(head: bytes, name: str) -> MediaError:
    """The error for a file that no allowed demuxer opened, judged by its first bytes."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if any(mark in start for mark in _PLAYLIST_MARKS):
        return PlaylistRefused(
            name, "it is a playlist, not a recording: it only names other files or addresses"
        )
    if head[4:8] in _MP4_BOXES:
        return TruncatedMedia(
            name, "the index (moov) of this mp4/mov is missing or broken, so its audio cannot be found"
        )
    if any(head.startswith(magic) for magic in _MEDIA_MAGIC):
        return DamagedMedia(name, "it begins like a media file, but its structure cannot be read")
    if _is_text(head):
        return NotMedia(name, "it is a text file, not a recording")
    return NotMedia(name, "it is not a sound or video format that can be read")


def _is_text(head: bytes) -> bool:
    sample = head[:512]
    try:
        text = sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4:
            return False
        text = sample[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _clock_s(text: str) -> float | None:
    """Seconds of `HH:MM:SS.fraction`; None if it is anything else."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
