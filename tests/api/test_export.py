"""Text and subtitles: every cue within the lines, in its time, never over another."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.export import CUE_LINES, LINE_CHARS, clock, cues, cut_cues, render_srt, render_txt, render_vtt, wrap
from db.states import SegmentState
from db.transcripts import DEMO_NOTICE, Model, Segment, Transcript
from tests.conftest import Said

LONG = "A Xunta presentou esta mañá en Santiago de Compostela o novo plan para a conservación dos arquivos sonoros"


def segment(index: int, start_s: float, end_s: float, text: str | None) -> Segment:
    """A done segment, or with text None a failed one."""
    state = SegmentState.FAILED if text is None else SegmentState.DONE
    return Segment(
        index, start_s, end_s, state, text, -0.1, (), None if text else "the model raised an error"
    )


def transcript(*segments: Segment, is_demo: bool = False) -> Transcript:
    """A finished transcript."""
    return Transcript(
        recording_id=uuid.uuid4(),
        recording="novas/día 1.mxf",
        transcript_id=uuid.uuid4(),
        model=Model("demo" if is_demo else "phi4", is_demo, "d" * 64),
        prompt="Transcribe",
        decode_settings={},
        splitter_version="1",
        code_version="1",
        duration_s=60.0,
        transcribed_s=60.0,
        no_speech_s=0.0,
        failed_s=0.0,
        finished_at=dt.datetime.now(dt.UTC),
        segments=segments,
        gaps=(),
    )


def test_text() -> None:
    made = transcript(
        segment(0, 1, 2, "Boas noites."), segment(1, 3723, 3724, None), segment(2, 3725, 3726, " a  b\n")
    )
    assert render_txt(made) == "Boas noites.\n[01:02:03.000 not transcribed]\na b\n"


def test_srt() -> None:
    made = transcript(segment(0, 1.5, 4.25, "Boas noites."), segment(1, 4.25, 6, None), segment(2, 7, 8, ""))
    assert render_srt(made) == (
        "1\n00:00:01,500 --> 00:00:04,250\nBoas noites.\n\n"
        "2\n00:00:04,250 --> 00:00:06,000\n[not transcribed]\n\n"
    )


def test_vtt_escapes_markup() -> None:
    made = transcript(segment(0, 1.5, 4.25, "R&B <i>--> Ñandú"))
    assert render_vtt(made) == ("WEBVTT\n\n00:00:01.500 --> 00:00:04.250\nR&amp;B &lt;i&gt;--&gt; Ñandú\n\n")


def test_a_long_segment_becomes_cues_in_proportion_to_their_characters() -> None:
    (first, second) = cues(transcript(segment(0, 10, 20, LONG)))
    assert " ".join((*first.lines, *second.lines)) == LONG
    assert (first.start_ms, second.end_ms) == (10_000, 20_000)
    assert first.end_ms == second.start_ms
    share = sum(map(len, first.lines)) / sum(map(len, (*first.lines, *second.lines)))
    assert first.end_ms == 10_000 + round(10_000 * share)


def test_the_notice_stands_in_every_form() -> None:
    late = transcript(segment(0, 5, 6, "Boas noites."), is_demo=True)
    soon = transcript(segment(0, 0, 6, "Boas noites."), is_demo=True)
    empty = transcript(is_demo=True)
    for made in (late, soon, empty):
        assert render_txt(made).startswith(f"# {DEMO_NOTICE}\n")
        assert f"NOTE {DEMO_NOTICE}\n\n" in render_vtt(made)
        assert f"[{DEMO_NOTICE}]" in " ".join(render_srt(made).split())
    assert render_srt(late).startswith("1\n00:00:00,000 --> 00:00:01,000\n[Made by")
    assert render_srt(soon).startswith("1\n00:00:00,000 --> 00:00:06,000\n[Made by")
    for render in (render_txt, render_srt, render_vtt):
        assert DEMO_NOTICE not in render(transcript(segment(0, 0, 1, "a")))


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (0, "00:00:00,000"),
        (59_999, "00:00:59,999"),
        (3_600_000, "01:00:00,000"),
        (360_000_001, "100:00:00,001"),
    ],
)
def test_clock(milliseconds: int, written: str) -> None:
    assert clock(milliseconds, ",") == written


WORDS = st.text(alphabet="abñáé-—ç日<& \n", max_size=400)


@given(WORDS)
def test_lines_keep_every_word_and_their_width(text: str) -> None:
    lines = wrap(text)
    assert all(0 < len(line) <= LINE_CHARS for line in lines)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0.1, 30), st.text(alphabet="abñ ç", max_size=600)), max_size=8
    ),
    st.booleans(),
)
def test_cues_follow_each_other(spans: list[tuple[float, float, str]], is_demo: bool) -> None:
    segments, position = [], 0.0
    for index, (pause_s, length_s, text) in enumerate(spans):
        start_s = position + pause_s
        position = start_s + length_s
        segments.append(segment(index, round(start_s, 3), round(position, 3), text))
    made = transcript(*segments, is_demo=is_demo)
    last = 0
    for cue in cues(made):
        assert last <= cue.start_ms < cue.end_ms
        assert 0 < len(cue.lines) <= CUE_LINES
        assert all(len(line) <= LINE_CHARS for line in cue.lines)
        last = cue.end_ms
    times = re.findall(r"(\d+):(\d+):(\d+),(\d+)", render_srt(made))
    moments = [((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(ms) for h, m, s, ms in times]
    assert moments == sorted(moments)


def test_more_text_than_milliseconds_still_has_times() -> None:
    made = list(cut_cues("palabra " * 200, 0, 3))
    assert [(cue.start_ms, cue.end_ms) for cue in made] == [(0, 1), (1, 2), (2, 3)]


def test_over_http(client: httpx.Client, owner: Any, make_transcript: Callable[..., Any]) -> None:
    said = [Said(0.5, 3.0, "Boas noites, Galicia."), Said(4.0, 5.0, None)]
    made = make_transcript(said, name="novas/día 1.wav", duration_s=6.0)
    url = f"/v1/recordings/{made.id}/transcript"
    answer = client.get(url, headers=owner.headers)
    assert answer.headers["Content-Disposition"].endswith("filename*=UTF-8''d%C3%ADa%201.json")
    found = answer.json()
    assert found["recording"] == "novas/día 1.wav"
    assert found["notice"] == DEMO_NOTICE
    assert found["model"] == {"name": "demo", "is_demo": True, "weights_sha256": "d" * 64}
    assert (found["transcribed_s"], found["no_speech_s"], found["failed_s"]) == (2.5, 2.5, 1.0)
    first, second = found["segments"]
    assert (first["index"], first["text"], first["confidence"]) == (0, "Boas noites, Galicia.", 0.951)
    assert (second["state"], second["text"]) == ("failed", None)
    assert second["failure_reason"] == "the model raised an error"
    assert [gap["kind"] for gap in found["gaps"]] == ["no_speech"] * 3
    for format_name, media_type in (
        ("txt", "text/plain; charset=utf-8"),
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
    ):
        answer = client.get(url, params={"format": format_name}, headers=owner.headers)
        assert answer.headers["Content-Type"] == media_type
        assert "Boas noites, Galicia." in answer.content.decode("utf-8")
    assert client.get(url, params={"format": "pdf"}, headers=owner.headers).status_code == 422


def test_no_transcript_yet(client: httpx.Client, owner: Any, make_recording: Callable[..., Any]) -> None:
    made = make_recording(name="a.wav")
    answer = client.get(f"/v1/recordings/{made.id}/transcript", headers=owner.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "transcript_not_ready")
    assert "a.wav is received" in answer.json()["detail"]
