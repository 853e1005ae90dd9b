"""Every sound and video format that can be made here, as small files: for the format matrix and the mutation run.

What a decoder must accept and nothing here can encode is listed in `docs/media.md`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.packet import Packet
from av.video.frame import VideoFrame

from tests.speech.media_files import RATE_HZ, Floats, demo_sentence


@dataclass(frozen=True)
class Format:
    """A container with one codec in it, as the decoder library's muxers and encoders name them."""

    container: str
    codec: str
    rate_hz: int = 48000
    layout: str = "stereo"
    delay_samples: int = 0
    """By how many samples at `rate_hz` the sound is late by the codec's own delay, where the container has no field
    to say so. 0 where it has."""
    frame_samples: int = 0
    """The codec's frame: the end may be filled up to one, or the start, where the container cannot say how far."""
    picture: str | None = None
    """A video codec beside the sound."""
    size: tuple[int, int] = (64, 64)
    bit_rate: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    encoder_options: tuple[tuple[str, str], ...] = ()
    sample_format: str | None = None
    quality: float = 0.97
    """Correlation with the source that the codec must reach, 0-1."""
    id: str = field(default="", compare=False)


RATES_HZ = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.1", "7.1")
DV_SIZE = (720, 576)
_LAX = (("strict", "experimental"),)
_QUICK = (("aac_coder", "fast"),)

# Delays are the encoders': LAME 1105 with the decoder's share, AAC 1024, MPEG layer II 481, AC-3 256, Opus 312,
# WMA 2009, AMR 40 (of which a 3gp takes 50 off).
FORMATS = (
    Format("wav", "pcm_s16le", id="wav"),
    Format("wav", "pcm_s24le", options=(("write_bext", "1"),), id="bwf"),
    Format("wav", "pcm_s16le", options=(("rf64", "always"),), id="rf64"),
    Format("w64", "pcm_s16le", id="w64"),
    *(Format("wav", "pcm_s16le", rate_hz=rate_hz, id=f"wav-{rate_hz}") for rate_hz in RATES_HZ),
    *(Format("wav", "pcm_s16le", layout=layout, id=f"wav-{layout}") for layout in LAYOUTS),
    *(
        Format("wav", codec, rate_hz=44100, layout="mono", id=f"wav-{codec}")
        for codec in ("pcm_u8", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw")
    ),
    Format("wav", "adpcm_ms", rate_hz=44100, layout="mono", frame_samples=2036, id="wav-adpcm-ms"),
    Format("wav", "adpcm_ima_wav", rate_hz=44100, layout="mono", frame_samples=2041, id="wav-adpcm-ima"),
    Format("wav", "g722", rate_hz=16000, layout="mono", delay_samples=22, id="wav-g722"),
    Format("aiff", "pcm_s16be", rate_hz=44100, id="aiff"),
    Format("aiff", "pcm_s24be", rate_hz=96000, id="aiff-24"),
    Format("au", "pcm_s16be", id="au"),
    Format("caf", "pcm_s16be", id="caf"),
    Format("caf", "alac", frame_samples=4096, id="caf-alac"),
    Format("voc", "pcm_u8", rate_hz=20000, layout="mono", id="voc"),
    Format("mp3", "libmp3lame", rate_hz=44100, id="mp3"),
    Format("mp3", "libmp3lame", rate_hz=22050, layout="mono", bit_rate=32000, id="mp3-22050"),
    Format("mp3", "libmp3lame", rate_hz=8000, layout="mono", quality=0.9, id="mp3-8000"),
    Format("mp2", "mp2", delay_samples=481, frame_samples=1152, id="mp2"),
    Format("mp2", "mp2", rate_hz=16000, layout="mono", delay_samples=481, frame_samples=1152, id="mp2-16000"),
    Format("ipod", "aac", rate_hz=44100, frame_samples=1024, encoder_options=_QUICK, id="m4a"),
    Format("ipod", "aac", rate_hz=8000, layout="mono", frame_samples=1024, encoder_options=_QUICK, id="m4a-8000"),
    Format("ipod", "aac", rate_hz=96000, frame_samples=1024, encoder_options=_QUICK, id="m4a-96000"),
    Format("ipod", "aac", layout="5.1", frame_samples=1024, encoder_options=_QUICK, id="m4a-5.1"),
    Format("ipod", "alac", frame_samples=4096, id="m4a-alac"),
    Format("adts", "aac", delay_samples=1024, frame_samples=2048, encoder_options=_QUICK, id="adts"),
    Format("latm", "aac", delay_samples=1024, frame_samples=2048, encoder_options=_QUICK, id="latm"),
    Format("ac3", "ac3", delay_samples=256, frame_samples=1536, id="ac3"),
    Format("ac3", "ac3", layout="5.1", delay_samples=256, frame_samples=1536, id="ac3-5.1"),
    Format("eac3", "eac3", delay_samples=256, frame_samples=1536, id="eac3"),
    Format("flac", "flac", rate_hz=44100, id="flac"),
    Format("flac", "flac", rate_hz=192000, id="flac-192000"),
    Format("ogg", "libopus", id="opus"),
    Format("ogg", "libopus", rate_hz=8000, layout="mono", id="opus-8000"),
    Format("ogg", "vorbis", rate_hz=44100, frame_samples=2048, encoder_options=_LAX, id="vorbis"),
    Format("ogg", "flac", rate_hz=44100, id="ogg-flac"),
    Format("asf", "wmav1", rate_hz=44100, bit_rate=128000, delay_samples=2009, frame_samples=4096, id="wma1"),
    Format("asf", "wmav2", rate_hz=44100, bit_rate=128000, delay_samples=2009, frame_samples=4096, id="wma2"),
    Format(
        "amr", "libopencore_amrnb", rate_hz=8000, layout="mono", bit_rate=12200, delay_samples=40,
        frame_samples=320, quality=0.7, id="amr",
    ),
    Format(
        "3gp", "libopencore_amrnb", rate_hz=8000, layout="mono", bit_rate=12200, delay_samples=-10, frame_samples=320,
        quality=0.7, id="3gp-amr",
    ),
    Format("tta", "tta", rate_hz=44100, id="tta"),
    Format("wv", "wavpack", rate_hz=44100, sample_format="s16p", id="wavpack"),
    Format("mp4", "aac", picture="mpeg4", frame_samples=1024, encoder_options=_QUICK, id="mp4"),
    Format("mov", "pcm_s16le", picture="mpeg4", id="mov"),
    Format("mov", "pcm_s24be", picture="mjpeg", id="mov-24"),
    Format("matroska", "aac", picture="mpeg4", frame_samples=1024, encoder_options=_QUICK, id="mkv"),
    Format("matroska", "pcm_s16le", picture="mpeg4", id="mkv-pcm"),
    Format("webm", "libopus", frame_samples=960, id="webm"),
    Format("webm", "vorbis", encoder_options=_LAX, frame_samples=2048, id="webm-vorbis"),
    Format("flv", "libmp3lame", rate_hz=44100, delay_samples=1105, frame_samples=2304, id="flv"),
    Format("mpegts", "mp2", picture="mpeg2video", delay_samples=481, frame_samples=1152, id="ts-mp2"),
    Format("mpegts", "ac3", picture="mpeg2video", delay_samples=256, frame_samples=1536, id="ts-ac3"),
    Format(
        "mpegts", "aac", picture="mpeg2video", delay_samples=1024, frame_samples=2048, encoder_options=_QUICK,
        id="ts-aac",
    ),
    Format("mpegts", "libmp3lame", delay_samples=1105, frame_samples=2304, id="ts-mp3"),
    Format("mpegts", "libopus", delay_samples=312, frame_samples=1920, id="ts-opus"),
    Format("mpeg", "mp2", picture="mpeg2video", delay_samples=481, frame_samples=1152, id="ps-mp2"),
    Format("vob", "ac3", picture="mpeg2video", delay_samples=256, frame_samples=1536, id="vob-ac3"),
    Format("vob", "pcm_dvd", frame_samples=320, id="vob-pcm"),
    Format("mxf", "pcm_s16le", picture="mpeg2video", id="mxf"),
    Format("mxf", "pcm_s24le", picture="mpeg2video", id="mxf-24"),
    Format("mxf_opatom", "pcm_s16le", layout="mono", options=(("mxf_audio_edit_rate", "25"),), id="mxf-opatom"),
    Format("gxf", "pcm_s16le", layout="mono", picture="mpeg2video", size=DV_SIZE, frame_samples=32768, id="gxf"),
    Format("avi", "pcm_s16le", picture="mpeg4", id="avi"),
    Format("avi", "libmp3lame", picture="mpeg4", delay_samples=1105, frame_samples=2304, id="avi-mp3"),
    Format("avi", "ac3", picture="mpeg4", delay_samples=256, frame_samples=1536, id="avi-ac3"),
    Format("dv", "pcm_s16le", picture="dvvideo", size=DV_SIZE, frame_samples=1920, id="dv"),
    Format("mov", "pcm_s16le", picture="dvvideo", size=DV_SIZE, id="mov-dv"),
)  # fmt: skip


def by_id(name: str) -> Format:
    return next(candidate for candidate in FORMATS if candidate.id == name)


@lru_cache(maxsize=1)
def source_speech() -> Floats:
    """Two seconds of speech, 16 kHz mono: speech codecs pass no noise."""
    speech = demo_sentence(0)[: 2 * RATE_HZ]
    loud: Floats = speech / np.abs(speech).max() * np.float32(0.7)
    return loud


@cache
def made(wanted: Format) -> bytes:
    """`source_speech` in this format."""
    return make(wanted, source_speech())


def make(wanted: Format, samples: Floats) -> bytes:
    """16 kHz mono `samples` in this format, under a moving picture where it has one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with av.open(str(path), "w", format=wanted.container, options=dict(wanted.options)) as muxer:
            video = None
            if wanted.picture is not None:
                video = muxer.add_stream(wanted.picture, rate=25)
                video.width, video.height = wanted.size
                video.pix_fmt = "yuvj420p" if wanted.picture == "mjpeg" else "yuv420p"
            audio = muxer.add_stream(
                wanted.codec, rate=wanted.rate_hz, layout=wanted.layout, options=dict(wanted.encoder_options)
            )
            if wanted.bit_rate is not None:
                audio.bit_rate = wanted.bit_rate
            if wanted.sample_format is not None:
                audio.format = wanted.sample_format
            packets: list[Packet] = []
            if video is not None:
                for number in range(-(-len(samples) * 25 // RATE_HZ)):
                    grey = np.full(wanted.size[::-1], number % 256, np.uint8)
                    picture = VideoFrame.from_ndarray(grey, format="gray").reformat(format=video.pix_fmt)
                    picture.pts, picture.time_base = number, Fraction(1, 25)
                    packets += video.encode(picture)
                packets += video.encode(None)
            resampler = av.AudioResampler(format=audio.format, layout=wanted.layout, rate=wanted.rate_hz)
            for at in range(0, len(samples), RATE_HZ // 50):  # PCM packets are as long as what is fed
                piece = (samples[at : at + RATE_HZ // 50] * 32767).clip(-32768, 32767).astype(np.int16)
                sound = AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
                sound.sample_rate, sound.time_base, sound.pts = RATE_HZ, Fraction(1, RATE_HZ), at
                for frame in resampler.resample(sound):
                    packets += audio.encode(frame)
            for frame in resampler.resample(None):
                packets += audio.encode(frame)
            packets += audio.encode(None)
            packets.sort(key=lambda packet: float((packet.dts or 0) * (packet.time_base or 0)))
            muxer.mux(packets)
        return path.read_bytes()
