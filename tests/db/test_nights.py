"""When nights are due, in zones whose clocks jump, and that each is begun once with a window of its own."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from db.connect import transaction
from db.nights import (
    NightRefused,
    Schedule,
    ZoneUnknown,
    begin_if_due,
    begin_now,
    list_nights,
    mark_done,
    note_failure,
    read_night,
)

MADRID = Schedule.of("02:30", "Europe/Madrid")


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("time", "zone", "night", "due"),
    [
        ("02:30", "Europe/Madrid", "2026-01-15", "2026-01-15T01:30"),
        ("02:30", "Europe/Madrid", "2026-07-15", "2026-07-15T00:30"),
        # clocks jump from 02:00 to 03:00: 02:30 does not exist, 03:00 is when they jump
        ("02:30", "Europe/Madrid", "2026-03-29", "2026-03-29T01:00"),
        ("03:00", "Europe/Madrid", "2026-03-29", "2026-03-29T01:00"),
        ("01:59", "Europe/Madrid", "2026-03-29", "2026-03-29T00:59"),
        # 02:30 exists twice: the first time, in summer time
        ("02:30", "Europe/Madrid", "2026-10-25", "2026-10-25T00:30"),
        ("03:00", "Europe/Madrid", "2026-10-25", "2026-10-25T02:00"),
        # Lord Howe Island moves by half an hour, from UTC+10:30 to UTC+11, at 02:00
        ("02:15", "Australia/Lord_Howe", "2026-10-04", "2026-10-03T15:30"),
        ("01:45", "Australia/Lord_Howe", "2026-04-05", "2026-04-04T14:45"),
        ("02:30", "Asia/Kathmandu", "2026-03-29", "2026-03-28T20:45"),
        # Samoa went without 2011-12-30: the clocks jumped at its beginning, over the whole day
        ("02:30", "Pacific/Apia", "2011-12-30", "2011-12-30T10:00"),
        ("02:30", "Pacific/Apia", "2011-12-31", "2011-12-30T12:30"),
    ],
)
def test_when_a_night_is_due(time: str, zone: str, night: str, due: str) -> None:
    schedule = Schedule.of(time, zone)
    assert schedule.due_at(day(night)) == utc(due)
    assert schedule.newest_due(utc(due)) == day(night)
    assert schedule.newest_due(utc(due) - dt.timedelta(seconds=1)) < day(night)


@given(
    now=st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2028, 1, 1)),  # noqa: DTZ001 - made aware below
    minute=st.integers(0, 24 * 60 - 1),
    zone=st.sampled_from(
        ["Europe/Madrid", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns", "UTC"]
    ),
)
def test_at_any_moment_one_night_is_the_newest(now: dt.datetime, minute: int, zone: str) -> None:
    schedule = Schedule.of(f"{minute // 60:02d}:{minute % 60:02d}", zone)
    moment = now.replace(tzinfo=dt.UTC)
    night = schedule.newest_due(moment)
    assert schedule.due_at(night) <= moment < schedule.due_at(night + dt.timedelta(days=1))
    assert schedule.due_at(night) - schedule.due_at(night - dt.timedelta(days=1)) >= dt.timedelta(hours=22)


def test_a_zone_that_does_not_exist_is_named() -> None:
    with pytest.raises(ZoneUnknown, match="Europa/Madrid"):
        Schedule.of("02:30", "Europa/Madrid")


def begin(engine: Engine, now: str, **keywords: dt.datetime) -> dt.date | None:
    with transaction(engine) as tx:
        begun = begin_if_due(tx.connection, MADRID, now=utc(now), **keywords)
    return begun.night if begun else None


def windows(engine: Engine) -> list[tuple[str, str, str, str]]:
    with engine.connect() as connection:
        return [
            (
                str(n.night),
                n.state,
                *(f"{at.astimezone(dt.UTC):%m-%dT%H:%M}" for at in (n.from_at, n.until_at)),
            )
            for n in reversed(list_nights(connection, 100))
        ]


def settle(engine: Engine, night: str) -> None:
    with transaction(engine) as tx:
        mark_done(tx.connection, day(night))


def test_a_night_is_begun_once(engine: Engine) -> None:
    assert begin(engine, "2026-11-22T01:29:59") == day("2026-11-21")
    assert begin(engine, "2026-11-22T01:30") == day("2026-11-22")
    assert begin(engine, "2026-11-22T01:31") is None
    assert begin(engine, "2026-11-23T01:29") is None
    assert windows(engine) == [
        ("2026-11-21", "measuring", "11-20T01:30", "11-21T01:30"),
        ("2026-11-22", "measuring", "11-21T01:30", "11-22T01:30"),
    ]


def test_many_who_begin_at_once_begin_one(engine: Engine) -> None:
    begin(engine, "2026-11-20T12:00")
    gate, begun = threading.Barrier(5), []

    def at_once() -> None:
        gate.wait()
        begun.append(begin(engine, "2026-11-23T12:00"))

    threads = [threading.Thread(target=at_once) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun, key=str) == [day("2026-11-23"), None, None, None, None]
    assert [row[:2] for row in windows(engine)] == [
        ("2026-11-20", "measuring"),
        ("2026-11-21", "missed"),
        ("2026-11-22", "missed"),
        ("2026-11-23", "measuring"),
    ]


def test_after_three_days_without_anybody_one_night_takes_everything_in(engine: Engine) -> None:
    begin(engine, "2026-11-20T02:00")
    settle(engine, "2026-11-20")
    assert begin(engine, "2026-11-24T09:00") == day("2026-11-24")
    settle(engine, "2026-11-24")
    assert begin(engine, "2026-11-25T02:00") == day("2026-11-25")
    assert windows(engine) == [
        ("2026-11-20", "done", "11-19T01:30", "11-20T01:30"),
        ("2026-11-21", "missed", "11-20T01:30", "11-21T01:30"),
        ("2026-11-22", "missed", "11-21T01:30", "11-22T01:30"),
        ("2026-11-23", "missed", "11-22T01:30", "11-23T01:30"),
        ("2026-11-24", "done", "11-20T01:30", "11-24T01:30"),
        ("2026-11-25", "measuring", "11-24T01:30", "11-25T01:30"),
    ]


def test_catching_up_goes_back_two_weeks_at_most(engine: Engine) -> None:
    begin(engine, "2026-09-01T02:00")
    begin(engine, "2026-11-24T02:00")
    assert windows(engine)[-1] == ("2026-11-24", "measuring", "11-10T01:30", "11-24T01:30")


def test_a_night_that_is_still_measured_keeps_its_window(engine: Engine) -> None:
    begin(engine, "2026-11-20T02:00")
    begin(engine, "2026-11-21T02:00")
    settle(engine, "2026-11-20")
    begin(engine, "2026-11-22T02:00")
    assert windows(engine)[-1] == ("2026-11-22", "measuring", "11-21T01:30", "11-22T01:30")


def test_nights_before_the_installation_are_not_begun(engine: Engine) -> None:
    installed = utc("2026-11-20T15:00")
    assert begin(engine, "2026-11-20T15:01", installed_at=installed) is None
    assert begin(engine, "2026-11-21T02:00", installed_at=installed) == day("2026-11-21")


def test_the_night_of_the_jump_follows_the_one_before(engine: Engine) -> None:
    for now in ("2026-03-28T02:00", "2026-03-29T01:00", "2026-03-30T00:30"):
        begin(engine, now)
    assert windows(engine) == [
        ("2026-03-28", "measuring", "03-27T01:30", "03-28T01:30"),
        ("2026-03-29", "measuring", "03-28T01:30", "03-29T01:00"),
        ("2026-03-30", "measuring", "03-29T01:00", "03-30T00:30"),
    ]


def test_beginning_by_hand(engine: Engine) -> None:
    def by_hand(now: str, night: str | None = None) -> dt.date:
        with transaction(engine) as tx:
            return begin_now(tx.connection, MADRID, now=utc(now), night=day(night) if night else None).night

    assert by_hand("2026-11-22T15:00", "2026-11-20") == day("2026-11-20")
    assert by_hand("2026-11-22T15:10") == day("2026-11-22"), "due, and nobody began it"
    assert by_hand("2026-11-22T15:20") == day("2026-11-23"), "the coming one"
    with pytest.raises(NightRefused, match="newest that can is 2026-11-23"):
        by_hand("2026-11-22T15:30", "2026-11-24")
    with pytest.raises(NightRefused, match="nights go in order"):
        by_hand("2026-11-22T15:30", "2026-11-21")
    assert begin(engine, "2026-11-23T02:00") is None, "it was begun by hand"
    assert begin(engine, "2026-11-24T02:00") == day("2026-11-24")
    assert windows(engine)[1:] == [
        ("2026-11-22", "measuring", "11-22T15:00", "11-22T15:10"),
        ("2026-11-23", "measuring", "11-22T15:10", "11-22T15:20"),
        ("2026-11-24", "measuring", "11-22T15:20", "11-24T01:30"),
    ]


def test_failures_are_kept_by_part(engine: Engine) -> None:
    begin(engine, "2026-11-22T02:00")
    night = day("2026-11-22")
    with transaction(engine) as tx:
        note_failure(tx.connection, night, "set odd: name", "no folder\nof that name")
        note_failure(tx.connection, night, "report", "the store is full")
        note_failure(tx.connection, night, "report", "the store is gone")
        note_failure(tx.connection, day("2026-11-21"), "report", "no such night: nothing happens")
    with engine.connect() as connection:
        found = read_night(connection)
    assert found is not None
    assert found.failures == {"set odd:name": "no folder of that name", "report": "the store is gone"}
    with transaction(engine) as tx:
        note_failure(tx.connection, night, "report", None)
        note_failure(tx.connection, night, "set odd: name", None)
        left = read_night(tx.connection, night)
    assert left is not None
    assert left.failure_reason is None
