"""`fonoteca transcribe`: one file, here and now, without a stack."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.options import checked_offset, checked_track

if TYPE_CHECKING:
    from db.transcripts import Transcript
    from speech.checkpoint import CheckpointCard
    from speech.engine import Hypothesis, Phi4Engine
    from speech.split import Split


class TextFormat(StrEnum):
    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TTML = "ttml"
    CTM = "ctm"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("transcribe")(transcribe)


def transcribe(
    file: Annotated[Path, typer.Argument(help="The media file.", show_default=False)],
    text_format: Annotated[
        TextFormat, typer.Option("--format", "-f", help="What to write.", case_sensitive=False)
    ] = TextFormat.TXT,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write to. Unset: standard output.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder of the checkpoint. Unset: FONOTECA_MODEL, or FONOTECA_FALLBACK_MODEL.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... Unset: FONOTECA_DEVICE.", show_default=False)
    ] = None,
    audio_track: Annotated[
        str,
        typer.Option(
            metavar="auto|mix|NUMBER",
            help="Sound track: the one with the most speech (auto), all mixed, or by number from 0.",
            callback=checked_track,
        ),
    ] = "auto",
    timecode_offset: Annotated[
        str | None,
        typer.Option(
            metavar="HH:MM:SS[.mmm]",
            help="What the clock showed at the first moment: subtitles count from it. Unset: as the file says, if it "
            "does; 0: from its start.",
            show_default=False,
            callback=checked_offset,
        ),
    ] = None,
) -> None:
    """Transcribe one file on this machine, without a running stack.

    Nothing is stored. Seconds that could not be read are listed on standard error, and the exit code is 1.
    """
    if not file.is_file():
        raise CliError(f"{file}: no such file" if not file.exists() else f"{file}: not a file")
    if output is not None and not output.parent.is_dir():
        raise CliError(f"{output}: the folder {output.parent} does not exist")
    transcript = transcribe_file(file, model=model, device=device, audio_track=audio_track)
    if timecode_offset is not None:
        from api.export.timecode import parse_offset

        transcript = replace(transcript, timecode_offset_ms=parse_offset(timecode_offset))
    content = render(transcript, text_format)
    if output is None:
        sys.stdout.write(content if content.endswith("\n") else content + "\n")
    else:
        output.write_text(content, encoding="utf-8")
    if transcript.failed_s:
        holes = "; ".join(
            f"{gap.start_s:.2f}-{gap.end_s:.2f} s: {gap.reason}" for gap in transcript.gaps if gap.reason
        )
        raise CliError(f"{file.name}: {transcript.failed_s:.2f} s could not be transcribed ({holes})")


def render(transcript: Transcript, text_format: TextFormat) -> str:
    """The transcript as the API writes it."""
    from api.export.ctm import render_ctm
    from api.export.subtitles import render_srt, render_vtt
    from api.export.text import render_txt
    from api.export.ttml import render_ttml
    from api.schemas import Transcript as Document

    if text_format is TextFormat.JSON:
        return Document.of(transcript).model_dump_json(indent=2)
    writers = {
        TextFormat.TXT: render_txt,
        TextFormat.SRT: render_srt,
        TextFormat.VTT: render_vtt,
        TextFormat.TTML: render_ttml,
        TextFormat.CTM: render_ctm,
    }
    return writers[text_format](transcript, transcript.timecode_offset_ms or 0)


def transcribe_file(
    file: Path, *, model: str | None = None, device: str | None = None, audio_track: str = "auto"
) -> Transcript:
    """Split and transcribe one file with the production splitter and engine.

    Raises:
        speech.errors.MediaError: the file cannot be read as sound.
        speech.checkpoint.CheckpointError: the model cannot be opened.
    """
    import tempfile

    from db.settings import Settings
    from speech.checkpoint import open_checkpoint, read_card
    from speech.engine import Phi4Engine
    from speech.split import split_media
    from speech.track_choice import parse_track_choice
    from speech.working_copy import read_spans

    settings = Settings()
    folder = model or settings.model
    with tempfile.TemporaryDirectory(prefix="fonoteca-transcribe-") as scratch:
        copy = Path(scratch) / "working.flac"
        # first the file, then the model: a bad file is told at once
        found = split_media(
            file, name=file.name, working_copy=copy, audio_track=parse_track_choice(audio_track)
        )
        card = read_card(folder, base=settings.model_base)
        engine = Phi4Engine(
            *open_checkpoint(
                folder,
                base=settings.model_base,
                device=device or settings.device,
                dtype=settings.dtype,
            )
        )
        hypotheses = engine.transcribe(list(read_spans(copy, found.segments)))
    return _as_transcript(file.name, found, card, engine, hypotheses)


def _as_transcript(
    name: str, found: Split, card: CheckpointCard, engine: Phi4Engine, hypotheses: list[Hypothesis]
) -> Transcript:
    import datetime as dt
    import uuid

    from db.code_version import code_version
    from db.schema import SAMPLE_RATE_HZ
    from db.states import GapKind, SegmentState
    from db.transcripts import Gap, Model, Segment, Transcript

    def seconds(n_samples: int) -> float:
        return round(n_samples / SAMPLE_RATE_HZ, 3)

    segments = tuple(
        Segment(
            index=index,
            start_s=seconds(span.start_sample),
            end_s=seconds(span.end_sample),
            state=SegmentState.DONE,
            text=hypothesis.text,
            mean_logprob=hypothesis.mean_logprob,
            flags=hypothesis.flags,
            failure_reason=None,
        )
        for index, (span, hypothesis) in enumerate(zip(found.segments, hypotheses, strict=True))
    )
    gaps = [
        Gap(GapKind.NO_SPEECH, seconds(gap.start_sample), seconds(gap.end_sample), None)
        for gap in found.no_speech
    ]
    gaps += [
        Gap(GapKind.FAILED, seconds(gap.start_sample), seconds(gap.end_sample), gap.reason)
        for gap in found.failed
    ]
    return Transcript(
        recording_id=uuid.uuid4(),
        recording=name,
        transcript_id=uuid.uuid4(),
        model=Model(card.name, card.is_demo, card.weights_sha256),
        prompt=engine.prompt,
        decode_settings=engine.describe(),
        splitter_version=found.splitter_version,
        code_version=code_version(),
        duration_s=seconds(found.duration_samples),
        transcribed_s=seconds(sum(s.end_sample - s.start_sample for s in found.segments)),
        no_speech_s=seconds(sum(g.end_sample - g.start_sample for g in found.no_speech)),
        failed_s=seconds(sum(g.end_sample - g.start_sample for g in found.failed)),
        finished_at=dt.datetime.now(dt.UTC),
        segments=segments,
        gaps=tuple(sorted(gaps, key=lambda gap: gap.start_s)),
        timecode_offset_ms=found.info.timecode_offset_ms,
    )
