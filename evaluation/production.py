"""Production, night by night: corrected segments against the reference window, and measures without references.

Everything is compared within one model: a new model begins a new reference and a new history. A worse model is a
regression, found on the fixed sets, and must not be called drift.

Like is compared with like: a stratum is a broadcaster's kind of programme (the programme, where its kind is not
known), drawn and chosen corrections apart, since people choose segments that hold errors. Segments of a recording
depend on each other: recordings are the clusters.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from sqlalchemy import Connection

from db.production import (
    CorrectedSegment,
    RecordingSums,
    StoredMeasure,
    accept_reference,
    corrected_segments,
    count_corrected,
    find_reference,
    finished_recordings,
    measure_history,
    store_measures,
)
from db.schema import SAMPLE_RATE_HZ
from evaluation.bootstrap import ratio_interval, ratio_standard_error, two_sided_t
from evaluation.compare import SIGNIFICANCE, holm
from evaluation.counts import EditCounts, ScoreError, count_many_words, group_indices
from evaluation.drift import MIN_REFERENCE_CLUSTERS, Window, WindowDifference, compare_windows
from evaluation.history import Measurement, against_history, findings
from evaluation.score import basic_normalizer, normalize_texts

MOST_SEGMENTS_A_DAY = 400
"""Corrected segments of one stratum and day that count: one diligent person does not drown all the others. Which ones
is settled by a hash of their ids, the same whenever it is asked."""
WINDOW_DAYS = 28
MIN_UNIT_SEGMENTS = 5
"""A programme with fewer corrected segments is not tested by itself."""
HISTORY_NIGHTS = 60
MIN_MEASURED_RECORDINGS = 3
MIN_MEASURED_SEGMENTS = 20
"""A unit with fewer of both counts as not measured tonight."""

DRAWN, CHOSEN = "drawn", "chosen"

Stratum = tuple[str, str, str]
"""Broadcaster, kind of programme (or the programme), drawn or chosen."""


# --- windows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Corrected segments with their counts in words, normalised by `basic`."""

    segments: tuple[CorrectedSegment, ...]
    words: EditCounts

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def n_words(self) -> int:
        return self.words.total.reference_length

    def where(self, wanted: Callable[[CorrectedSegment], bool]) -> Scored:
        """Those of which `wanted` is true."""
        chosen = np.array([wanted(segment) for segment in self.segments], dtype=bool)
        kept = tuple(segment for segment, is_in in zip(self.segments, chosen, strict=True) if is_in)
        return Scored(kept, self.words.take(chosen))

    @property
    def window(self) -> Window:
        """For `evaluation.drift`."""
        return Window(
            self.words,
            [stratum_of(segment) for segment in self.segments],
            [segment.recording_id for segment in self.segments],
        )


def stratum_of(segment: CorrectedSegment) -> Stratum:
    """What a corrected segment is compared with."""
    return segment.broadcaster, segment.group, DRAWN if segment.is_drawn else CHOSEN


def score_segments(segments: Sequence[CorrectedSegment]) -> Scored:
    """Count the errors of transcribed texts against their corrections."""
    refs = normalize_texts([segment.corrected for segment in segments], basic_normalizer)
    hyps = normalize_texts([segment.transcribed for segment in segments], basic_normalizer)
    return Scored(tuple(segments), count_many_words(refs, hyps))


def limit_strata(
    segments: Iterable[CorrectedSegment], until_at: dt.datetime, most: int = MOST_SEGMENTS_A_DAY
) -> list[CorrectedSegment]:
    """At most `most` segments of each stratum and day (counted back from `until_at`), in their order."""
    days: dict[tuple[Stratum, int], list[CorrectedSegment]] = defaultdict(list)
    for segment in segments:
        days[stratum_of(segment), (until_at - segment.corrected_at) // dt.timedelta(days=1)].append(segment)
    kept = [
        segment
        for members in days.values()
        for segment in (members if len(members) <= most else sorted(members, key=_lot)[:most])
    ]
    return sorted(kept, key=lambda segment: (segment.corrected_at, segment.segment_id))


def _lot(segment: CorrectedSegment) -> bytes:
    return hashlib.sha256(f"stratum lot {segment.segment_id}".encode()).digest()


def read_window(connection: Connection, model_id: int, from_at: dt.datetime, until_at: dt.datetime) -> Scored:
    """The corrected segments of one model in a window, limited and scored."""
    return score_segments(limit_strata(corrected_segments(connection, model_id, from_at, until_at), until_at))


# --- drift -----------------------------------------------------------------------------------------------


class UnitKind(StrEnum):
    """What a figure is of."""

    ALL = "all"
    DRAWN = "drawn"
    """All segments drawn at random: those chosen by people hold more errors."""
    BROADCASTER = "broadcaster"
    PROGRAMME_KIND = "programme_kind"
    PROGRAMME = "programme"


@dataclass(frozen=True)
class Standout:
    """A programme or kind of programme whose errors changed, tested alone."""

    kind: UnitKind
    """PROGRAMME or PROGRAMME_KIND."""
    broadcaster: str
    name: str
    rate: float
    """Word error rate since the change began."""
    expected_rate: float
    """What the reference lets expect at the same mix."""
    is_own_reference: bool
    """Compared with its own past; otherwise with its stratum's."""
    n_segments: int
    n_words: int
    p_value: float
    adjusted_p: float
    """After correction for all units tested (Holm)."""

    @property
    def is_worse(self) -> bool:
        return self.rate > self.expected_rate


@dataclass(frozen=True)
class WindowFigure:
    """Word error rate of a part of the rolling window."""

    kind: UnitKind
    broadcaster: str | None
    name: str
    wer: float | None
    low: float | None
    high: float | None
    """95 % interval over recordings; None with one."""
    n_segments: int
    n_drawn: int
    n_recordings: int
    n_words: int
    n_errors: int


@dataclass(frozen=True)
class RollingWindow:
    """The newest days of corrections, as the report shows them."""

    from_at: dt.datetime
    until_at: dt.datetime
    figures: tuple[WindowFigure, ...]
    """Of all, of the drawn ones, then by broadcaster, kind of programme and programme."""


@dataclass(frozen=True)
class DriftTonight:
    """This night's corrected segments against the reference window."""

    difference: WindowDifference | None
    reference_id: int | None
    n_segments: int
    """Corrected tonight, after the limit by stratum."""
    n_words: int
    wer: float | None
    """Tonight's, over all words; beside `difference`, which is at tonight's mix."""
    low: float | None
    high: float | None
    standouts: list[Standout]
    """The certain ones first, programmes before kinds."""
    n_tested: int
    """Programmes and kinds tested for standing out."""
    window: RollingWindow
    why_not: str | None
    """Why there is no difference."""
    basis: str
    """`drawn`: compared on drawn segments alone; `chosen`: on all, since few of the reference's were drawn."""


def drift_tonight(
    connection: Connection,
    *,
    model_id: int,
    from_at: dt.datetime,
    until_at: dt.datetime,
    reference_segments: int,
    since_at: dt.datetime | None = None,
    window_days: int = WINDOW_DAYS,
) -> DriftTonight:
    """Compare the segments first corrected in the window with the model's reference window.

    Without a reference, and once `reference_segments` segments of the model were corrected before `from_at`, all of
    those become it, so that the reference holds whole nights.

    Args:
        connection: in a transaction: a reference may be accepted.
        model_id: the model in service.
        from_at, until_at: the night's window of corrections.
        reference_segments: FONOTECA_DRIFT_REFERENCE_SEGMENTS.
        since_at: when the change began, by the chart; what stands out is tested since then. Unset: `from_at`.
        window_days: FONOTECA_DRIFT_WINDOW_DAYS.
    """
    reference = find_reference(connection, model_id)
    before = count_corrected(connection, model_id, from_at)
    if reference is None and before.first_at is not None and before.n_segments >= reference_segments:
        accept_reference(
            connection,
            model_id=model_id,
            from_at=before.first_at,
            until_at=from_at,
            accepted_by="system",
            reason=f"the first {before.n_segments:,} corrected segments of this model",
        )
        reference = find_reference(connection, model_id)
    rolling_from = until_at - dt.timedelta(days=window_days)
    since = min(since_at or from_at, from_at)
    pool = read_window(connection, model_id, min(rolling_from, since), until_at)
    tonight = pool.where(lambda segment: segment.corrected_at >= from_at)
    n_words = tonight.n_words
    low, high = _interval(tonight)
    difference, why_not, n_tested = None, None, 0
    basis, everything, of_tonight = CHOSEN, pool, tonight
    standouts: list[Standout] = []
    if reference is None:
        why_not = (
            f"{before.n_segments:,} of the {reference_segments:,} corrected segments are there that this model "
            "needs for a reference window"
        )
    elif not len(tonight):
        why_not = "no segment was corrected"
    else:
        past = read_window(connection, model_id, reference.from_at, reference.until_at)
        if 2 * sum(segment.is_drawn for segment in past.segments) >= len(past):
            # what people choose to correct changes with the people: it is shown, and drift is told of what was drawn
            basis = DRAWN
            past, tonight, pool = (
                window.where(lambda segment: segment.is_drawn) for window in (past, tonight, pool)
            )
        changed = pool.where(lambda segment: segment.corrected_at >= max(since, reference.until_at))
        try:
            difference = compare_windows(past.window, tonight.window)
        except ScoreError as error:
            why_not = (
                str(error) if len(tonight) else "no segment that was drawn was corrected, only chosen ones"
            )
        else:
            standouts, n_tested = find_standouts(past, changed)
    return DriftTonight(
        difference=difference,
        reference_id=reference.id if reference else None,
        n_segments=len(of_tonight),
        n_words=n_words,
        wer=_rate(of_tonight),
        low=low,
        high=high,
        standouts=standouts,
        n_tested=n_tested,
        basis=basis,
        window=rolling_window(
            everything.where(lambda segment: segment.corrected_at >= rolling_from), rolling_from, until_at
        ),
        why_not=why_not,
    )


def find_standouts(
    reference: Scored, current: Scored, significance: float = SIGNIFICANCE
) -> tuple[list[Standout], int]:
    """Programmes and kinds of programmes whose errors changed; and how many were tested.

    A programme is compared with its own past in a stratum in which the reference has enough of its recordings,
    otherwise with the whole stratum.
    """
    tested: list[Standout] = []
    for kind, broadcaster, name in _units(current):
        if kind in (UnitKind.PROGRAMME, UnitKind.PROGRAMME_KIND):
            found = _test_unit(reference, current, kind, broadcaster or "", name)
            if found is not None:
                tested.append(found)
    if not tested:
        return [], 0
    adjusted = holm([unit.p_value for unit in tested])
    kept = [
        replace(unit, adjusted_p=p) for unit, p in zip(tested, adjusted, strict=True) if p <= significance
    ]
    return sorted(kept, key=lambda unit: (unit.kind is not UnitKind.PROGRAMME, unit.adjusted_p)), len(tested)


def _test_unit(
    reference: Scored, current: Scored, kind: UnitKind, broadcaster: str, name: str
) -> Standout | None:
    is_of = _membership(kind, broadcaster, name)
    now = current.where(is_of)
    if len(now) < MIN_UNIT_SEGMENTS:
        return None
    strata = {stratum_of(segment) for segment in now.segments}
    own = reference.where(is_of)
    known = {stratum for stratum in strata if _is_known(own.where(_in_stratum(stratum)))}
    past = reference.where(
        lambda segment: stratum_of(segment) in strata and (stratum_of(segment) not in known or is_of(segment))
    )
    if not len(past):
        return None
    try:
        difference = compare_windows(past.window, now.window)
    except ScoreError:
        return None
    # one unit's spread rests on few recordings of the reference: Student's t, where `drift` pools all strata
    degrees = max(1, len({segment.recording_id for segment in past.segments}) - len(strata))
    p_value = two_sided_t(difference.z, degrees)
    if not math.isfinite(p_value):
        return None
    return Standout(
        kind=kind,
        broadcaster=broadcaster,
        name=name,
        rate=difference.reference_rate + difference.value,
        expected_rate=difference.reference_rate,
        is_own_reference=known == strata,
        n_segments=len(now),
        n_words=now.n_words,
        p_value=p_value,
        adjusted_p=1.0,
    )


def _in_stratum(stratum: Stratum) -> Callable[[CorrectedSegment], bool]:
    return lambda segment: stratum_of(segment) == stratum


def _is_known(past: Scored) -> bool:
    """Whether a unit's own past says enough: enough recordings, and errors whose spread can be known."""
    n_recordings = len({segment.recording_id for segment in past.segments})
    return n_recordings >= MIN_REFERENCE_CLUSTERS and past.words.total.errors > 0


def _membership(kind: UnitKind, broadcaster: str | None, name: str) -> Callable[[CorrectedSegment], bool]:
    if kind is UnitKind.ALL:
        return lambda segment: True
    if kind is UnitKind.DRAWN:
        return lambda segment: segment.is_drawn
    if kind is UnitKind.BROADCASTER:
        return lambda segment: segment.broadcaster == broadcaster
    if kind is UnitKind.PROGRAMME_KIND:
        return lambda segment: segment.broadcaster == broadcaster and segment.programme_kind == name
    return lambda segment: segment.broadcaster == broadcaster and segment.programme == name


def _units(scored: Scored) -> list[tuple[UnitKind, str | None, str]]:
    """What a window is made of: all, drawn, then broadcasters, kinds and programmes by name."""
    segments = scored.segments
    units: set[tuple[UnitKind, str | None, str]] = set()
    for segment in segments:
        units.add((UnitKind.BROADCASTER, segment.broadcaster, segment.broadcaster))
        if segment.programme_kind:
            units.add((UnitKind.PROGRAMME_KIND, segment.broadcaster, segment.programme_kind))
        if segment.programme:
            units.add((UnitKind.PROGRAMME, segment.broadcaster, segment.programme))
    order = list(UnitKind)
    named = sorted(units, key=lambda unit: (order.index(unit[0]), unit[1] or "", unit[2]))
    return [(UnitKind.ALL, None, "production"), (UnitKind.DRAWN, None, "drawn"), *named]


def rolling_window(scored: Scored, from_at: dt.datetime, until_at: dt.datetime) -> RollingWindow:
    """The figures of a window and of its parts; nothing of parts without a segment."""
    figures = []
    for kind, broadcaster, name in _units(scored):
        part = scored.where(_membership(kind, broadcaster, name))
        if not len(part):
            continue
        low, high = _interval(part)
        figures.append(
            WindowFigure(
                kind=kind,
                broadcaster=broadcaster,
                name=name,
                wer=_rate(part),
                low=low,
                high=high,
                n_segments=len(part),
                n_drawn=sum(segment.is_drawn for segment in part.segments),
                n_recordings=len({segment.recording_id for segment in part.segments}),
                n_words=part.n_words,
                n_errors=part.words.total.errors,
            )
        )
    return RollingWindow(from_at, until_at, tuple(figures))


def _rate(scored: Scored) -> float | None:
    return scored.words.total.errors / scored.n_words if scored.n_words else None


def _interval(scored: Scored) -> tuple[float | None, float | None]:
    if not len(scored):
        return None, None
    groups = group_indices([segment.recording_id for segment in scored.segments], len(scored))
    low, high = ratio_interval(scored.words.errors, scored.words.reference_lengths, groups, seed=0)
    return _or_none(low), _or_none(high)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- measures without references -------------------------------------------------------------------------

MEASURES: dict[str, Callable[[RecordingSums], tuple[float, float]]] = {
    "mean_logprob": lambda sums: (sums.sum_logprob, sums.n_tokens),
    "words_per_s": lambda sums: (sums.n_words, sums.segment_samples / SAMPLE_RATE_HZ),
    "loop_rate": lambda sums: (sums.n_loops, sums.n_segments),
    "empty_rate": lambda sums: (sums.n_empty, sums.n_segments),
    "speech_share": lambda sums: (sums.transcribed_samples, sums.duration_samples),
}
"""Each a ratio of sums over recordings: so a token, a second or a segment weighs the same wherever it is."""


def measure_units(
    connection: Connection,
    *,
    night: dt.date,
    model_id: int,
    from_at: dt.datetime,
    until_at: dt.datetime,
) -> list[StoredMeasure]:
    """Measure what needs no references, compare it with each unit's own history, and store it for the night.

    Returns:
        Every measure of tonight; those with an `adjusted_p` are findings.
    """
    measured = _measure(finished_recordings(connection, model_id, from_at, until_at))
    history: dict[tuple[str, int | None, str, str], list[Measurement]] = defaultdict(list)
    for key, value, error in measure_history(
        connection, model_id=model_id, before=night, nights=HISTORY_NIGHTS
    ):
        history[key].append(Measurement(value, math.nan if error is None else error))
    tests = {
        each.key: against_history(
            history[each.key],
            Measurement(each.value, math.nan if each.standard_error is None else each.standard_error),
        )
        for each in measured
    }
    found = findings(tests)
    compared = []
    for each in measured:
        test, finding = tests[each.key], found.get(each.key)
        if test is not None:
            each = replace(each, centre=test.centre, p_value=test.p_value, n_nights=test.n_nights)
        compared.append(replace(each, adjusted_p=finding.adjusted_p) if finding else each)
    store_measures(connection, night=night, model_id=model_id, measures=compared)
    return compared


def _measure(recordings: Sequence[RecordingSums]) -> list[StoredMeasure]:
    units: dict[tuple[str, int | None, str | None, str], list[RecordingSums]] = defaultdict(list)
    for sums in recordings:
        units["broadcaster", sums.broadcaster_id, sums.broadcaster, sums.broadcaster].append(sums)
        if sums.programme is not None:
            units["programme", sums.broadcaster_id, sums.broadcaster, sums.programme].append(sums)
        if sums.broadcast_on is not None:
            units["decade", None, None, f"{sums.broadcast_on.year // 10 * 10}s"].append(sums)
    return [
        measure
        for (kind, broadcaster_id, broadcaster, unit), members in units.items()
        for measure in _measure_unit(kind, broadcaster_id, broadcaster, unit, members)
    ]


def _measure_unit(
    kind: str,
    broadcaster_id: int | None,
    broadcaster: str | None,
    unit: str,
    members: Sequence[RecordingSums],
) -> list[StoredMeasure]:
    n_segments = sum(sums.n_segments for sums in members)
    if len(members) < MIN_MEASURED_RECORDINGS and n_segments < MIN_MEASURED_SEGMENTS:
        return []
    measures = []
    for name, ratio in MEASURES.items():
        above, below = np.array([ratio(sums) for sums in members], dtype=float).T
        if not below.sum() > 0:
            continue  # nothing to divide by: not measured
        measures.append(
            StoredMeasure(
                unit_kind=kind,
                broadcaster_id=broadcaster_id,
                broadcaster=broadcaster,
                unit=unit,
                measure=name,
                value=float(above.sum() / below.sum()),
                standard_error=_or_none(ratio_standard_error(above, below)),
                n_segments=n_segments,
                n_recordings=len(members),
            )
        )
    return measures
