"""Transcripts in the forms that others read, checked by other people's parsers where there are any."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import srt
import ttconv.imsc.reader
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from api.export.ctm import file_name, render_ctm
from api.export.subtitles import cues_of, render_srt, render_vtt
from api.export.text import render_txt
from api.export.timecode import BadTimecodeOffset, clock, parse_offset
from api.export.ttml import render_ttml
from db.transcripts import DEMO_NOTICE
from tests.api.made_transcripts import transcript
from tests.conftest import Said

TEXT = (
    "A Xunta presentou esta mañá en Santiago de Compostela o novo plan para a conservación dos arquivos sonoros. "
    "Chámase «R&B <son>» e custa 3,5 millóns."
)
MADE = transcript((1.5, 13.25, TEXT), (13.25, 15, None), (16, 17, ""), (20, 21.5, "Ata mañá."))
TEN_HOURS_MS = 36_000_000

TT = "{http://www.w3.org/ns/ttml}"
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"


# --- text -------------------------------------------------------------------------------------------------


def test_text() -> None:
    made = transcript((1, 2, "Boas noites."), (3723, 3724, None), (3725, 3726, " a  b\n"))
    assert render_txt(made) == "Boas noites.\n[01:02:03.000 not transcribed]\na b\n"
    assert "[11:02:03.000 not" in render_txt(made, TEN_HOURS_MS)


def test_the_notice_stands_in_every_form() -> None:
    for made in (transcript((5, 6, "Boas noites."), is_demo=True), transcript(is_demo=True)):
        assert render_txt(made).startswith(f"# {DEMO_NOTICE}\n")
        assert f"NOTE {DEMO_NOTICE}\n\n" in render_vtt(made)
        assert f"[{DEMO_NOTICE}]" in " ".join(render_srt(made).split())
        assert f"[{DEMO_NOTICE}]" in " ".join(ET.fromstring(render_ttml(made)).itertext())
        assert f";; {DEMO_NOTICE}\n" in render_ctm(made)
    for render in (render_txt, render_srt, render_vtt, render_ttml, render_ctm):
        assert DEMO_NOTICE not in render(transcript((0, 1, "a")))


# --- subtitles --------------------------------------------------------------------------------------------


def test_srt_read_by_another_parser() -> None:
    read = list(srt.parse(render_srt(MADE, TEN_HOURS_MS)))
    assert [item.index for item in read] == list(range(1, len(read) + 1))
    cues = cues_of(MADE, show_notice=True)
    assert [item.content for item in read] == ["\n".join(cue.lines) for cue in cues]
    assert [round(item.start.total_seconds() * 1000) - TEN_HOURS_MS for item in read] == [
        cue.start_ms for cue in cues
    ]
    assert [round(item.end.total_seconds() * 1000) - TEN_HOURS_MS for item in read] == [
        cue.end_ms for cue in cues
    ]


def test_webvtt_read_by_another_parser() -> None:
    read = webvtt.from_string(render_vtt(MADE, TEN_HOURS_MS))
    cues = cues_of(MADE, show_notice=True)
    assert [caption.start for caption in read.captions] == [
        clock(cue.start_ms + TEN_HOURS_MS) for cue in cues
    ]
    assert [caption.end for caption in read.captions] == [clock(cue.end_ms + TEN_HOURS_MS) for cue in cues]
    escaped = "\n".join(cues[2].lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert "R&amp;B &lt;son&gt;" in "".join(caption.raw_text for caption in read.captions)
    assert read.captions[2].raw_text == escaped


def test_ttml_read_by_another_parser() -> None:
    """Sandflow's IMSC and EBU-TT-D reader finds each cue, its time, region and lines."""
    document = ttconv.imsc.reader.to_model(ET.ElementTree(ET.fromstring(render_ttml(MADE, TEN_HOURS_MS))))
    assert document is not None
    assert document.get_lang() == "gl"
    (division,) = document.get_body()
    cues = cues_of(MADE, show_notice=True)
    read = [
        (
            round(paragraph.get_begin() * 1000),
            round(paragraph.get_end() * 1000),
            tuple(text.get_text() for span in paragraph for text in span if type(span).__name__ == "Span"),
        )
        for paragraph in division
    ]
    assert read == [(cue.start_ms + TEN_HOURS_MS, cue.end_ms + TEN_HOURS_MS, cue.lines) for cue in cues]
    assert division.get_region().get_id() == "bottom"


def assert_ebu_tt_d(written: str) -> None:
    """The rules of EBU Tech 3380 (version 1.0.1, chapter 3) that a document of this kind can break."""
    root = ET.fromstring(written)
    parameter, styling = "{http://www.w3.org/ns/ttml#parameter}", "{http://www.w3.org/ns/ttml#styling}"
    assert root.tag == f"{TT}tt"
    assert root.get(f"{parameter}timeBase") == "media"
    assert re.fullmatch(r"[1-9]\d* [1-9]\d*", root.get(f"{parameter}cellResolution", "32 15"))
    assert root.get("{http://www.w3.org/XML/1998/namespace}lang") is not None
    assert [child.tag for child in root] in ([f"{TT}head"], [f"{TT}head", f"{TT}body"])
    head = root[0]
    assert [child.tag for child in head if child.tag != f"{TT}metadata"] == [f"{TT}styling", f"{TT}layout"]
    styles = {style.attrib[XML_ID]: style for style in head.iter(f"{TT}style")}
    regions = {region.attrib[XML_ID]: region for region in head.iter(f"{TT}region")}
    assert styles
    assert regions
    percent = r"(\d{1,2}(\.\d+)?|100)%"
    for region in regions.values():
        for name in ("origin", "extent"):
            assert re.fullmatch(f"{percent} {percent}", region.attrib[f"{styling}{name}"])
    for style in styles.values():
        for name in ("fontSize", "lineHeight"):
            assert re.fullmatch(r"(\d+(\.\d+)?%|normal)", style.get(f"{styling}{name}", "normal"))
        for name in ("color", "backgroundColor"):
            assert re.fullmatch(r"#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?", style.get(f"{styling}{name}", "#000000"))
    ids = [element.attrib[XML_ID] for element in root.iter() if XML_ID in element.attrib]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in ids)
    for element in root.iter():
        # styles are referred to, never written at the text
        if element not in styles.values() and element not in regions.values():
            assert not any(name.startswith(styling) for name in element.attrib)
        assert set(element.get("style", "").split()) <= set(styles)
        assert element.get("region", "bottom") in regions
    for body in root.iter(f"{TT}body"):
        assert len(body)
        for division in body:
            assert division.tag == f"{TT}div"
            assert len(division)
            for paragraph in division:
                assert paragraph.tag == f"{TT}p"
                assert XML_ID in paragraph.attrib
                for name in ("begin", "end"):
                    assert re.fullmatch(r"\d{2,}:[0-5]\d:[0-5]\d(\.\d+)?", paragraph.attrib[name])
                assert paragraph.attrib["begin"] < paragraph.attrib["end"]
                # text stands in spans only, and a span holds nothing but text and line breaks
                assert not (paragraph.text or "").strip()
                for child in paragraph:
                    assert child.tag in {f"{TT}span", f"{TT}br"}
                    assert not (child.tail or "").strip()
                    assert not len(child)


def test_ttml_keeps_the_rules_of_ebu_tt_d() -> None:
    for made in (MADE, transcript(), transcript((0, 3, "Boas noites."), is_demo=True)):
        assert_ebu_tt_d(render_ttml(made, TEN_HOURS_MS))


TEXTS = st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=200)


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_any_text_gives_files_that_can_be_read(text: str) -> None:
    """Markup, arrows, controls: whatever a model writes comes back from the parsers."""
    made = transcript((1, 9, text), (10, 12, "Fin."))
    lines = [line for cue in cues_of(made, show_notice=True) for line in cue.lines]
    assert_ebu_tt_d(render_ttml(made))
    read = ET.fromstring(render_ttml(made))
    assert len(list(read.iter(f"{TT}span"))) == len(lines)
    assert len(webvtt.from_string(render_vtt(made)).captions) == len(cues_of(made, show_notice=True))
    assert_ctm(render_ctm(made))


# --- CTM --------------------------------------------------------------------------------------------------


def assert_ctm(written: str) -> list[tuple[str, str, float, float, str, str]]:
    """The lines of a CTM file as sclite reads them: five or six columns, sorted by file, channel and time."""
    rows = []
    assert written.endswith("\n")
    for line in written.rstrip("\n").split("\n"):
        if line.startswith(";;"):
            continue
        file, channel, start, duration, word, confidence = line.split()
        assert re.fullmatch(r"\d+\.\d{3}", start)
        assert re.fullmatch(r"\d+\.\d{3}", duration)
        assert confidence == "NA" or 0 <= float(confidence) <= 1
        rows.append((file, channel, float(start), float(duration), word, confidence))
    assert [row[:3] for row in rows] == sorted(row[:3] for row in rows)
    return rows


def test_ctm_has_a_line_per_word_with_its_share_of_the_time() -> None:
    made = transcript((1.0, 3.0, "Boas noites, Galicia."), (4, 5, None), recording="novas/día 1.wav")
    assert render_ctm(made, TEN_HOURS_MS).split("\n", 2)[1].startswith(";; start and duration are estimates")
    assert assert_ctm(render_ctm(made, TEN_HOURS_MS)) == [
        ("novas_día_1", "1", 1.0, 0.421, "Boas", "0.905"),
        ("novas_día_1", "1", 1.421, 0.737, "noites,", "0.905"),
        ("novas_día_1", "1", 2.158, 0.842, "Galicia.", "0.905"),
    ]
    assert ";; not transcribed: 4.000 to 5.000\n" in render_ctm(made)


@pytest.mark.parametrize(
    ("name", "written"),
    [("a/b c.wav", "a_b_c"), ("a.b/c", "a.b_c"), (" ", "recording"), ("x.tar.gz", "x.tar")],
)
def test_ctm_file_names_have_no_spaces(name: str, written: str) -> None:
    assert file_name(name) == written


# --- times ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("written", "offset_ms"),
    [("0", 0), ("10:00:00", TEN_HOURS_MS), ("10:00:00.04", 36_000_040), ("23:59:59.999", 86_399_999)],
)
def test_offsets(written: str, offset_ms: int) -> None:
    assert parse_offset(written) == offset_ms


@pytest.mark.parametrize(
    "written", ["", "10", "10:00", "1:00:00", "24:00:00", "10:60:00", "10:00:00:12", "-0", "١٠:00:00"]
)
def test_what_is_no_offset(written: str) -> None:
    with pytest.raises(BadTimecodeOffset, match=r"write what the clock shows .* as HH:MM:SS"):
        parse_offset(written)


# --- over HTTP --------------------------------------------------------------------------------------------


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
        ("ttml", "application/ttml+xml; charset=utf-8"),
        ("ctm", "text/plain; charset=utf-8"),
    ):
        answer = client.get(url, params={"format": format_name}, headers=owner.headers)
        assert answer.headers["Content-Type"] == media_type
        assert "Galicia." in answer.content.decode("utf-8")
    assert client.get(url, params={"format": "pdf"}, headers=owner.headers).status_code == 422


def test_no_transcript_yet(client: httpx.Client, owner: Any, make_recording: Callable[..., Any]) -> None:
    made = make_recording(name="a.wav")
    answer = client.get(f"/v1/recordings/{made.id}/transcript", headers=owner.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "transcript_not_ready")
    assert "a.wav is received" in answer.json()["detail"]


def test_the_timecode_offset_goes_from_submission_to_subtitles(
    client: httpx.Client, owner: Any, make_transcript: Callable[..., Any]
) -> None:
    announced = {"name": "novas.wav", "size_bytes": 1, "timecode_offset": "10:00:00.04"}
    body = {"name": "luns", "recordings": [announced, {"name": "b.wav", "size_bytes": 1}]}
    sent = client.post("/v1/batches", json=body, headers=owner.headers)
    assert [item["timecode_offset"] for item in sent.json()["recordings"]] == ["10:00:00.040", None]
    refused = client.post(
        "/v1/batches",
        json={"name": "luns", "recordings": [announced | {"timecode_offset": "ten"}]},
        headers=owner.headers,
    )
    assert refused.status_code == 422
    assert "write what the clock shows" in refused.json()["detail"]

    made = make_transcript([Said(0.5, 3.0, "Boas noites, Galicia.")], timecode_offset_ms=TEN_HOURS_MS)
    url = f"/v1/recordings/{made.id}/transcript"

    def first_time(**query: str) -> str:
        answer = client.get(url, params={"format": "vtt"} | query, headers=owner.headers)
        return re.findall(r"(\S+) -->", answer.text)[0]

    assert first_time() == "10:00:00.500"
    assert first_time(timecode_offset="0") == "00:00:00.500"
    assert first_time(timecode_offset="01:00:00") == "01:00:00.500"
    answer = client.get(url, params={"format": "srt", "timecode_offset": "1h"}, headers=owner.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "timecode_offset_unreadable")
    found = client.get(url, headers=owner.headers).json()
    assert (found["timecode_offset"], found["segments"][0]["start_s"]) == ("10:00:00.000", 0.5)
