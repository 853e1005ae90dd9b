"""A small made-up archive with everything in it that the cookbook asks about, and answers that a person can work out.

Three broadcasters, six decades apart, two models, one transcript that a newer one replaced, damaged tape, corrections,
three nights of quality, and work that still waits. Recordings are declared second by second, so that an answer can be
checked with a pencil. Ids are fixed: the pages made from it are the same every time.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

UTC = dt.UTC
BROADCASTERS = ("radio-costa", "tele-val", "arquivo-oral")
FIRST_MODEL, SECOND_MODEL = "phi4-galician", "phi4-galician-2"
HELD_OUT_SETS = ("memoria-oral", "telexornal-2023")
BAD_TAPE = "the audio could not be decoded: 5.0 s of the tape are damaged"
ENGINE_ERROR = "the engine raised an error: out of memory"
BROKEN_INDEX = "the index (moov) of this mp4/mov is missing or broken, so its audio cannot be found"


@dataclass(frozen=True)
class Silence:
    """Seconds without speech: silence, music, noise."""

    seconds: float


@dataclass(frozen=True)
class Damage:
    """Seconds that could not be decoded."""

    seconds: float


@dataclass(frozen=True)
class Say:
    """A segment. text None: it failed; `is_waiting`: nothing has been written yet."""

    seconds: float
    text: str | None
    confidence: float = 0.95
    flags: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    """Corrections, oldest first: the last one is current."""
    is_drawn: bool = True
    is_waiting: bool = False
    failures: tuple[tuple[str, str | None, str | None], ...] = ()
    """Attempts before the last: outcome, error code, message."""


Span = Silence | Damage | Say


@dataclass(frozen=True)
class Made:
    """One recording and how it was transcribed."""

    number: int
    batch: str
    name: str
    spans: tuple[Span, ...] = ()
    programme: str | None = None
    kind: str | None = None
    broadcast_on: dt.date | None = None
    model: str | None = FIRST_MODEL
    done_at: dt.datetime | None = None
    timecode_offset_ms: int | None = None
    state: str = "completed"
    failure: tuple[str, str] | None = None
    sha256_of: int | None = None
    """Number of the recording whose bytes these are; its own by default."""
    waits: str | None = None
    """Interval since it was submitted, for what is not finished."""
    older: tuple[Span, ...] = field(default=())
    """The transcript that was replaced, by the first model."""

    @property
    def recording_id(self) -> uuid.UUID:
        """Fixed, and shaped like the real ones (UUID version 7)."""
        return uuid.UUID(f"018fd000-0000-7000-8000-{self.number:012d}")

    @property
    def transcript_id(self) -> uuid.UUID:
        """Of the current transcript."""
        return uuid.UUID(f"018fd001-0000-7000-8000-{self.number:012d}")

    @property
    def older_transcript_id(self) -> uuid.UUID:
        """Of the replaced one."""
        return uuid.UUID(f"018fd002-0000-7000-8000-{self.number:012d}")

    @property
    def seconds(self) -> float:
        """Duration."""
        return sum(span.seconds for span in self.spans)

    @property
    def said(self) -> list[Say]:
        """Segments with a text, in order."""
        return [span for span in self.spans if isinstance(span, Say) and span.text is not None]


def day(year: int, month: int, number: int) -> dt.date:
    return dt.date(year, month, number)


def june(number: int, hour: int, minute: int) -> dt.datetime:
    """When something was finished: the first days of June 2024."""
    return dt.datetime(2024, 6, number, hour, minute, tzinfo=UTC)


def bulletin(number: int, on: dt.date, spans: Sequence[Span], done_at: dt.datetime, **more: object) -> Made:
    return Made(
        number, "boletins-2024", f"boletin-{on}.wav", tuple(spans), "Boletín das oito", "news", on,
        done_at=done_at, timecode_offset_ms=8 * 3_600_000, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def television(number: int, on: dt.date, spans: Sequence[Span], done_at: dt.datetime, **more: object) -> Made:
    return Made(
        number, "telexornal-2024", f"telexornal-{on}.mp4", tuple(spans), "Telexornal", "news", on,
        done_at=done_at, **more,  # type: ignore[arg-type]
    )  # fmt: skip


BATCHES = {
    "boletins-2024": ("radio-costa", "normal"),
    "reenvio": ("radio-costa", "urgent"),
    "telexornal-2024": ("tele-val", "normal"),
    "cintas": ("arquivo-oral", "archive"),
}

RECORDINGS = (
    bulletin(
        1,
        day(2024, 1, 8),
        [
            Silence(0.5),
            Say(2.5, "Bos días, abren os portos de Vigo e da Coruña."),
            Say(2.5, "A folga do metal segue en Vigo por terceiro día."),
            Silence(0.5),
            Say(2.5, "Os sindicatos piden unha reunión coa patronal."),
            Silence(6.5),
        ],
        june(3, 1, 10),
        model=SECOND_MODEL,
        older=(
            Silence(0.5),
            Say(2.5, "Bos días, abren os portos de Bigo e da Coruña.", 0.8),
            Say(2.5, "A folga do metal segue en Vigo por terceiro día.", 0.9),
            Silence(0.5),
            Say(2.5, "Os sindicatos piden unha unión coa patronal.", 0.7),
            Silence(6.5),
        ),
    ),
    bulletin(
        2,
        day(2024, 1, 22),
        [
            Silence(0.5),
            Say(2.5, "A folga do metal remata hoxe con acordo."),
            Say(
                2.5,
                "Máis tarde, chuvia en Bigo e vento na costa.",
                0.8,
                corrected=("Máis tarde, chuvia en Vigo e vento na costa.",),
            ),
            Silence(9.5),
        ],
        june(1, 1, 20),
    ),
    bulletin(
        3,
        day(2024, 2, 5),
        [
            Silence(1.25),
            Say(2.5, "Sen folga, os barcos de Vigo volven ao mar."),
            Say(
                2.5,
                "O prezo do peixe baixa na lonxa de Bigo.",
                0.75,
                corrected=("O prezo do peixe baixa na lonxa de Vigo.",),
            ),
            Silence(1.25),
        ],
        june(3, 1, 20),
        model=SECOND_MODEL,
    ),
    Made(
        4,
        "boletins-2024",
        "mar-de-fora-2024-02-11.wav",
        (
            Say(7.5, "Nacín nunha casa a carón do mar, e o mar foi sempre a miña escola."),
            Silence(50),
            Say(7.5, "Meu pai saía de noite ao mar e volvía coas redes cheas de peixe."),
            Say(7.5, "As redes cosíanas as mulleres no porto, cantando todas xuntas."),
            Say(7.5, "E cando o mar estaba bravo, ninguén falaba na casa ata a noite."),
            Silence(1.25),
            Say(5, "Rosalía cantaba mellor ca ninguén, e o porto calaba."),
            Silence(1.25),
        ),
        "Mar de fóra",
        "interview",
        day(2024, 2, 11),
        done_at=june(1, 2, 10),
    ),
    television(
        5,
        day(2024, 1, 8),
        [
            Silence(2.5),
            Say(5, "O goberno fala da folga do metal e chama á calma."),
            Say(
                5,
                "En Lugo, a feira do gando abre mañá.",
                failures=(("lost", None, "the worker died"),),
            ),
            Silence(10),
        ],
        june(1, 2, 20),
    ),
    television(
        6,
        day(2024, 2, 19),
        [
            Silence(2.5),
            Say(5, "Visita a Vigo da ministra, sen falar da folga."),
            Say(
                5,
                "Máis de mil persoas na feira de Lugo.",
                corrected=(
                    "Máis de cen persoas na feira de Lugo.",
                    "Máis de mil persoas na feira de Monforte.",
                ),
                is_drawn=False,
            ),
            Silence(2.5),
        ],
        june(1, 3, 10),
    ),
    Made(
        7,
        "telexornal-2024",
        "a-festa-2024-02-24.mp4",
        (Silence(45), Say(5, "Grazas, Rosalía, por cantar connosco esta noite.")),
        "A festa",
        "music",
        day(2024, 2, 24),
        done_at=june(1, 3, 20),
    ),
    Made(
        8,
        "telexornal-2024",
        "a-festa-2024-03-02.mp4",
        (Silence(20), Say(5, "")),
        "A festa",
        "music",
        day(2024, 3, 2),
        done_at=june(1, 3, 30),
    ),
    Made(
        9,
        "cintas",
        "cinta-01.wav",
        (
            Silence(5),
            Say(7.5, "Daquela iamos ao mar con remos e velas.", 0.7),
            Say(
                7.5,
                "O mestre dicía que o mar non perdoa.",
                0.6,
                ("low_confidence",),
                corrected=("O mestre dicía que o mar, non perdoa",),
            ),
            Silence(5),
        ),
        "Memoria do mar",
        "interview",
        day(1978, 6, 1),
        done_at=june(2, 1, 10),
    ),
    Made(
        10,
        "cintas",
        "cinta-02.wav",
        (
            Silence(2.5),
            Damage(5),
            Say(
                7.5,
                "No peirao de Vigo traballaban os meus irmáns.",
                0.8,
                corrected=("No peirao de Vigo traballaban entón os meus irmáns.",),
            ),
            Say(
                2.5,
                None,
                failures=(
                    ("failed", "engine_error", ENGINE_ERROR),
                    ("failed", "engine_error", ENGINE_ERROR),
                ),
            ),
            Silence(7.5),
        ),
        "Memoria do mar",
        "interview",
        day(1985, 3, 10),
        done_at=june(2, 1, 40),
        state="partial",
        failure=("seconds_failed", "7.50 s could not be transcribed; the coverage lists them"),
    ),
    Made(
        11,
        "cintas",
        "cinta-03.wav",
        (
            Silence(10),
            Say(2.5, "Proba de son, un dous tres.", 0.45, ("low_confidence", "too_fast")),
        ),
        done_at=june(2, 2, 10),
        older=(Silence(2.5), Say(10, "Proba de son.", 0.5)),
    ),
    Made(
        12,
        "cintas",
        "cinta-04.mp4",
        model=None,
        done_at=june(2, 2, 20),
        state="failed",
        failure=("truncated_media", BROKEN_INDEX),
    ),
    Made(
        13,
        "reenvio",
        "copia/boletin-2024-01-08.wav",
        programme="Boletín das oito",
        kind="news",
        broadcast_on=day(2024, 1, 8),
        model=None,
        state="received",
        sha256_of=1,
        waits="3 days 02:10",
    ),
    Made(
        14,
        "reenvio",
        "boletin-2024-06-03.wav",
        (
            Silence(2.5),
            Say(5, "Comezan as festas do verán na costa."),
            Say(2.5, None, is_waiting=True),
        ),
        "Boletín das oito",
        "news",
        day(2024, 6, 3),
        model=SECOND_MODEL,
        state="transcribing",
        waits="1 day 02:10",
    ),
    Made(
        15,
        "reenvio",
        "boletin-2024-06-04.wav",
        programme="Boletín das oito",
        kind="news",
        broadcast_on=day(2024, 6, 4),
        model=None,
        state="awaiting_media",
        waits="05:10",
    ),
    bulletin(
        16,
        day(2024, 3, 11),
        [
            Silence(1.25),
            Say(2.5, "Vigo estrea hoxe a nova lonxa."),
            Say(2.5, "Chega a Vigo o barco da pesca."),
            Say(2.5, "O tempo mellora na costa."),
            Silence(1.25),
        ],
        june(2, 2, 30),
    ),
    bulletin(
        17,
        day(2024, 4, 8),
        [
            Silence(1.25),
            Say(2.5, "O alcalde de Vigo presenta as contas."),
            Say(2.5, "Sobe o prezo do leite."),
            Silence(1.25),
        ],
        june(2, 3, 10),
    ),
    bulletin(
        18,
        day(2024, 5, 6),
        [
            Silence(1.25),
            Say(2.5, "Folga de buses en Vigo."),
            Say(2.5, "En Vigo non saen os buses."),
            Say(2.5, "Miles de persoas camiñan por Vigo."),
            Say(2.5, "A patronal de Vigo chama ao acordo."),
            Silence(1.25),
        ],
        june(3, 1, 30),
        model=SECOND_MODEL,
    ),
    television(
        19,
        day(2024, 3, 18),
        [Silence(2.5), Say(5, "Vigo e Lugo xogan hoxe a final."), Silence(2.5)],
        june(3, 2, 10),
        model=SECOND_MODEL,
    ),
    television(
        20,
        day(2024, 5, 20),
        [
            Silence(2.5),
            Say(5, "Rematan as folgas dos buses de Vigo."),
            Say(5, "Vigo celebra o acordo."),
            Say(5, "A festa chega a Vigo o sábado."),
            Silence(2.5),
        ],
        june(3, 2, 20),
        model=SECOND_MODEL,
    ),
    Made(
        21,
        "boletins-2024",
        "mar-de-fora-2024-04-14.wav",
        (
            Silence(2.5),
            Say(7.5, "Levamos o peixe á lonxa de Vigo antes do amencer."),
            Say(7.5, "En Vigo había traballo para todos."),
            Silence(2.5),
        ),
        "Mar de fóra",
        "interview",
        day(2024, 4, 14),
        model=SECOND_MODEL,
        done_at=june(3, 2, 30),
    ),
)


@dataclass(frozen=True)
class Score:
    """One night's rates of one held-out set, in words that make them whole numbers."""

    night: dt.date
    held_out_set: str
    model: str
    n_words: int
    n_errors: int
    half_width: float
    """Of the 95 % interval, as a fraction."""
    verdict: str
    sentence: str


NIGHTS = (day(2024, 6, 1), day(2024, 6, 2), day(2024, 6, 3))
SCORES = (
    Score(NIGHTS[0], "telexornal-2023", FIRST_MODEL, 2000, 100, 0.01, "ok", "As good as the baseline."),
    Score(NIGHTS[0], "memoria-oral", FIRST_MODEL, 1000, 120, 0.02, "ok", "As good as the baseline."),
    Score(NIGHTS[1], "telexornal-2023", FIRST_MODEL, 2000, 104, 0.01, "ok", "As good as the baseline."),
    Score(NIGHTS[1], "memoria-oral", FIRST_MODEL, 1000, 118, 0.02, "ok", "As good as the baseline."),
    Score(NIGHTS[2], "telexornal-2023", SECOND_MODEL, 2000, 80, 0.01, "improved", "1.0 points fewer errors."),
    Score(NIGHTS[2], "memoria-oral", SECOND_MODEL, 1000, 150, 0.02, "regressed", "3.0 points more errors."),
)
