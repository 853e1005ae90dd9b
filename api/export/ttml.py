"""EBU-TT-D, the subtitles that European broadcasters distribute (EBU Tech 3380; TTML 1 underneath)."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from api.export.subtitles import cues_of
from api.export.timecode import clock
from db.transcripts import Transcript

LANGUAGE = "gl"

NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<tt:tt xmlns:tt="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:tts="http://www.w3.org/ns/ttml#styling" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    xmlns:ebuttm="urn:ebu:tt:metadata" xmlns:ebutts="urn:ebu:tt:style"
    ttp:timeBase="media" ttp:cellResolution="32 15" xml:lang={language} xml:space="default">
  <tt:head>
    <tt:metadata>
      <ebuttm:documentMetadata>
        <ebuttm:documentEbuttVersion>v1.0</ebuttm:documentEbuttVersion>
      </ebuttm:documentMetadata>
    </tt:metadata>
    <tt:styling>
      <tt:style xml:id="block" tts:fontFamily="sansSerif" tts:fontSize="100%" tts:lineHeight="125%"
          tts:textAlign="center" tts:wrapOption="noWrap" ebutts:linePadding="0.5c"/>
      <tt:style xml:id="text" tts:color="#ffffff" tts:backgroundColor="#000000"/>
    </tt:styling>
    <tt:layout>
      <tt:region xml:id="bottom" tts:origin="5% 75%" tts:extent="90% 20%" tts:displayAlign="after"/>
    </tt:layout>
  </tt:head>
"""


def render_ttml(transcript: Transcript, offset_ms: int = 0) -> str:
    """EBU-TT-D subtitles at the bottom of the picture, the notice as the first of them.

    Characters that XML cannot hold become U+FFFD.
    """
    parts = [HEAD.format(language=quoteattr(LANGUAGE))]
    cues = cues_of(transcript, show_notice=True)
    if cues:  # a body holds at least one paragraph
        parts.append('  <tt:body>\n    <tt:div region="bottom" style="block">\n')
        parts += [
            f'      <tt:p xml:id="c{number}" begin="{clock(cue.start_ms + offset_ms)}" '
            f'end="{clock(cue.end_ms + offset_ms)}">'
            + "<tt:br/>".join(
                f'<tt:span style="text">{escape(printable(line))}</tt:span>' for line in cue.lines
            )
            + "</tt:p>\n"
            for number, cue in enumerate(cues, start=1)
        ]
        parts.append("    </tt:div>\n  </tt:body>\n")
    parts.append("</tt:tt>\n")
    return "".join(parts)


def printable(text: str) -> str:
    """Text that an XML document can hold."""
    return NOT_IN_XML.sub("\ufffd", text)
