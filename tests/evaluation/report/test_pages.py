"""Pages, mails and pictures of a report: valid, self-contained, equal for equal documents, readable without colour."""

from __future__ import annotations

import base64
import datetime as dt
import re
import textwrap
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from evaluation.report.document import AlignedPiece, Document
from evaluation.report.mail import COLUMNS, plain_text, subject_line
from evaluation.report.pages import page
from evaluation.report.pictures import MARKERS, drift_chart, set_chart
from evaluation.report.sentences import Language
from evaluation.report.words import Words
from evaluation.report.write import write_report
from tests.evaluation.report.conftest import MadeReport
from tests.evaluation.report.made_report import LAST

VOID = {"meta", "link", "br", "img", "input", "hr", "area", "base", "col", "embed", "source", "track", "wbr"}
PICTURE_LIMIT_BYTES = 80_000


class Checker(HTMLParser):
    """Collects what is wrong with a page, and what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.references: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if len(found) != len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if found.get("id"):
            self.ids[found["id"] or ""] += 1
        for name in ("href", "src"):
            if found.get(name):
                self.references.append((tag, found[name] or ""))
        for name in ("aria-labelledby", "aria-describedby"):
            self.references += [(tag, f"#{each}") for each in (found.get(name) or "").split()]
        self.references += [(tag, f"#{each}") for each in re.findall(r"url\(#([\w-]+)\)", str(attrs))]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing, line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(content: str) -> Checker:
    checker = Checker()
    checker.feed(content)
    checker.close()
    assert checker.wrong == []
    assert checker.open == []
    return checker


@pytest.mark.parametrize("language", Language)
def test_a_page_is_valid_and_takes_nothing_from_outside(made: MadeReport, language: Language) -> None:
    content = made.read(f"report.{language.value}.html")
    checker = check(content)
    assert [name for name, n in checker.ids.items() if n > 1] == []
    pages = {f"report.{other.value}.html" for other in Language if other != language}
    for _, target in checker.references:
        if target.startswith("#"):
            assert target[1:] in checker.ids
        else:
            assert target in pages or target.startswith(("data:audio/mpeg;base64,", "data:image/svg+xml,"))
    assert pages <= {target for _, target in checker.references}
    assert "default-src 'none'" in content
    assert "<script" not in content
    assert not re.search(r"https?://(?!www\.w3\.org/)", content)
    assert f'<html lang="{language.value}">' in content
    assert Words(language).headline(made.document) in " ".join("".join(checker.text).split())


def test_the_verdict_is_the_first_thing_said(made: MadeReport) -> None:
    content = made.read("report.gl.html")
    assert content.index("Regresión en Transcrispeech") < content.index("<h2")
    assert made.written.mail_text.startswith("Regresión en Transcrispeech")


def test_names_and_texts_cannot_break_out_of_a_page(made: MadeReport) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'"
    document = made.document
    first = replace(
        document.worst[0],
        programme=evil,
        reference=evil,
        hypothesis=evil,
        key=evil,
        alignment=(AlignedPiece("substitute", (evil,), (evil,)),),
    )
    changed = replace(
        document,
        worst=(first, *document.worst[1:]),
        sets=(replace(document.sets[0], name=evil), *document.sets[1:]),
    )
    content = page(changed, Language.EN, {})
    checker = check(content)
    assert "<img" not in content
    assert evil in "".join(checker.text)
    assert all(re.fullmatch(r"[\w-]+", name) for name in checker.ids)


def test_errors_can_be_told_apart_without_colour(made: MadeReport) -> None:
    assert len({marker.shape for marker in MARKERS.values()}) == len(MARKERS)
    content = made.read("report.en.html")
    style = content[content.index("<style>") : content.index("</style>")]
    assert re.search(r"\.piece\.delete \.above \{[^}]*line-through", style)
    assert re.search(r"\.piece\.insert \.below \{[^}]*border: 2px solid", style)
    assert re.search(r"\.piece\.substitute \.below \{[^}]*dotted", style)
    assert "became" in content  # what a screen reader says of a substitution


def test_clips_are_inside_and_those_that_cannot_be_heard_say_why(made: MadeReport) -> None:
    content = made.read("report.en.html")
    sources = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', content)
    clips = [one.clip for one in made.document.worst]
    failed = [clip for clip in clips if clip is not None and clip.failure]
    assert len(failed) >= 2
    assert len(sources) == len(clips) - len(failed)
    assert "no such file or directory" in {clip.failure for clip in failed}
    assert content.count("The audio cannot be heard") == len(failed)
    assert sum(len(source) for source in sources) < 4_000_000
    assert base64.b64decode(sources[0])[:1] == b"\xff"
    # no folder of this machine is told
    assert str(made.settings.datasets) not in content


def test_written_again_the_pages_are_the_same(made: MadeReport) -> None:
    before = {path.name: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    with made.engine.begin() as connection:
        again = write_report(connection, made.store, night=LAST, settings=made.settings)
        n_rows = connection.exec_driver_sql("SELECT count(*) FROM quality_reports").scalar()
    assert n_rows == 1
    after = {path.name: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}

    def without_time(content: bytes, made_at: str) -> bytes:
        moment = dt.datetime.fromisoformat(made_at)
        for shown in (made_at, *(Words(language).time(moment) for language in Language)):
            content = content.replace(shown.encode(), b"")
        return content

    assert before.keys() == after.keys()
    for name, content in before.items():
        assert without_time(content, made.written.document["made_at"]) == without_time(
            after[name], again.document["made_at"]
        )


def test_files_lie_where_the_row_says(made: MadeReport) -> None:
    assert {key.split("/")[0] for key in made.written.keys} == {"quality"}
    for key in made.written.keys:
        reader = made.store.open(key)
        assert reader.read(1)
        reader.close()


def check_picture(svg: str, name: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(found is not None and found.startswith(f"{name}-") for found in ids)
    assert root.get("role") == "img"
    assert [child.tag.split("}")[1] for child in root][:2] == ["title", "desc"]
    assert "metadata" not in svg
    assert len(svg) < PICTURE_LIMIT_BYTES
    return root


def test_pictures_are_named_small_and_the_same_each_time(made: MadeReport) -> None:
    words = Words(Language.GL)
    one = next(found for found in made.document.sets if found.name == "Transcrispeech")
    svg = set_chart(one, words, 3.8, "p")
    root = check_picture(svg, "p")
    assert set_chart(one, words, 3.8, "p") == svg
    texts = {"".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")}
    assert {"modelo novo", "liña base", "máis erros"} <= texts  # text stays text
    assert made.document.drift is not None
    check_picture(drift_chart(made.document.drift, words, 3.8, "d"), "d")


def test_a_set_without_nights_has_no_picture(made: MadeReport) -> None:
    one = replace(made.document.sets[0], history=())
    assert set_chart(one, Words(Language.EN), 3.8, "p") == ""
    assert "No night has been measured yet" in page(replace(made.document, sets=(one,)), Language.EN, {})


def test_a_single_night_has_a_picture(made: MadeReport) -> None:
    first = made.document.sets[1]
    one = replace(first, history=first.history[:1])
    check_picture(set_chart(one, Words(Language.EN), 3.8, "p"), "p")


@pytest.mark.parametrize("language", Language)
def test_mail_is_72_columns_of_plain_text(made: MadeReport, language: Language) -> None:
    content = plain_text(made.document, language, "/var/lib/fonoteca/report.html")
    assert max(len(line) for line in content.splitlines() if not line.startswith("  ")) <= COLUMNS
    assert "\u00a0" not in content
    assert "/var/lib/fonoteca/report.html" in content
    assert "fonoteca report --date 2026-11-22 --open" in content
    table = [line for line in content.splitlines() if line.startswith(("FLEURS", "Transcrispeech"))]
    assert len(table) == 2


def test_subject_names_verdict_set_and_points(made: MadeReport) -> None:
    effect = made.document.headline.effect
    assert effect is not None
    assert subject_line(made.document, Language.EN) == (
        f"Fonoteca 2026-11-22: regressed Transcrispeech (+{100 * effect:.2f} points)"
    )
    assert subject_line(made.document, Language.GL).startswith(
        "Fonoteca 2026-11-22: empeorou Transcrispeech (+"
    )


def test_a_demo_model_says_so_everywhere(made: MadeReport) -> None:
    document = made.document
    demo = replace(
        document,
        headline=replace(document.headline, is_demo=True),
        models=tuple(replace(model, is_demo=True) for model in document.models),
    )
    assert "demo model" in subject_line(demo, Language.EN)
    unfolded = " ".join(plain_text(demo, Language.EN).split())
    assert "trained on synthetic speech" in unfolded
    assert page(demo, Language.GL, {}).count("odelo de demostración") >= 2
    assert "synthetic speech" not in made.read("report.en.txt")


def quiet(document: Document) -> Document:
    ok = [
        replace(one, verdict=replace(one.verdict, verdict="ok", cause="nothing", standouts=(), changes=()))
        for one in document.sets
    ]
    head = replace(
        document.headline, verdict="ok", cause="nothing", question=None, subject=None, effect=None, since=None,
        standouts=(), others=(), n_open_alerts=0,
    )  # fmt: skip
    return replace(document, sets=tuple(ok), headline=head, alerts=(), drift=None)


def test_a_quiet_night_is_said_in_one_sentence(made: MadeReport) -> None:
    found = quiet(made.document)
    assert Words(Language.EN).headline(found) == (
        "Quality holds: no change is seen in Entrevistas, FLEURS and Transcrispeech."
    )
    assert subject_line(found, Language.EN) == "Fonoteca 2026-11-22: ok"
    assert textwrap.dedent(plain_text(found, Language.GL)).startswith("A calidade mantense")
    check(page(found, Language.ES, {}))
