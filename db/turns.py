"""Whose work is next: fair between broadcasters, without counting anything when work is claimed.

Each piece of work gets a *turn* when it enters its queue, and claims go by priority class and turn. A broadcaster's
turns run on by the work's length over the broadcaster's weight; they begin where the queue stands (at the turn that is
being served), or behind the broadcaster's own last one, whichever is later. So ten thousand hours of one broadcaster
lie far ahead, the first hour of another one begins where the queue stands, and from there on both are served side by
side. This is self-clocked fair queuing (Golestani 1994, doi:10.1109/INFCOM.1994.337677); docs/decisions/0026 has the
reasons.

Turns are counted in samples of audio (segments) or in bytes of media (recordings), of a broadcaster of weight 1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from sqlalchemy import Connection, text

from db.states import Priority, WorkQueue

HELD_BACK = 100
"""Added to the rank of segments that must not be claimed: they lie behind all others in the claimers' index."""

OVERDUE_S = 3600.0
"""A lower class whose next piece of work has waited so long is served before the higher ones now and then."""

OVERDUE_SHARE = 0.125
"""So many of all claims, while such a piece waits."""

_LOTS = random.Random()  # noqa: S311 - whose turn it is, no secret


@dataclass(frozen=True)
class Flow:
    """The work of one broadcaster in one class of a queue."""

    queue: WorkQueue
    broadcaster_id: int
    rank: int
    """Of its priority class (`db.states.Priority.rank`)."""


# Where each queue stands: the highest turn that is under way (what comes back to the queue has a lower one), else the
# lowest that waits. NULL: it is empty. Suspects, which wait long, tell nothing. Each part is read off an index.
_STANDS_SQL: dict[WorkQueue, LiteralString] = {
    WorkQueue.SPLIT: """
        coalesce((SELECT max(r.turn) FROM recordings r WHERE r.state = 'splitting' AND r.priority = :rank),
                 (SELECT r.turn FROM recordings r
                  WHERE r.state = 'received' AND r.hold IS NULL AND r.priority = :rank
                  ORDER BY r.turn, r.id LIMIT 1))
    """,
    WorkQueue.TRANSCRIBE: """
        coalesce((SELECT max(s.turn) FROM segments s WHERE s.state = 'running' AND s.priority = :rank),
                 (SELECT s.turn FROM segments s WHERE s.state = 'pending' AND s.priority = :rank AND s.losses < 2
                  ORDER BY s.turn, s.id LIMIT 1))
    """,
}


def stands_at(connection: Connection, queue: WorkQueue, rank: int) -> int | None:
    """The turn that is being served in a class of a queue; None where it is empty."""
    turn: int | None = connection.scalar(text(f"SELECT {_STANDS_SQL[queue]}"), {"rank": rank})
    return turn


def take_turns(connection: Connection, flow: Flow, lengths: Sequence[int]) -> list[int]:
    """Turns for pieces of work that enter a queue, in their order. Locks the flow's row until the transaction ends.

    Args:
        lengths: of each piece: samples, or bytes.
    """
    parameters = {"queue": flow.queue.value, "broadcaster_id": flow.broadcaster_id, "rank": flow.rank}
    connection.execute(
        text(
            "INSERT INTO turns (queue, broadcaster_id, priority) VALUES (:queue, :broadcaster_id, :rank) "
            "ON CONFLICT DO NOTHING"
        ),
        parameters,
    )
    own = connection.execute(
        text(
            "SELECT t.next_turn, b.weight FROM turns t JOIN broadcasters b ON b.id = t.broadcaster_id "
            "WHERE t.queue = :queue AND t.broadcaster_id = :broadcaster_id AND t.priority = :rank FOR UPDATE OF t"
        ),
        parameters,
    ).one()
    # looked up once the row is ours: what entered the queue while we waited for it counts
    stands = stands_at(connection, flow.queue, flow.rank)
    turn = float(max(stands or 0, own.next_turn))
    if stands is None:
        # in an empty queue all begin anew: who was served while nobody else waited owes nothing
        turn = 0.0
        connection.execute(
            text(
                "UPDATE turns SET next_turn = 0 WHERE (queue, broadcaster_id, priority) IN ("
                "SELECT queue, broadcaster_id, priority FROM turns WHERE queue = :queue AND priority = :rank "
                "AND next_turn > 0 FOR UPDATE SKIP LOCKED)"  # whoever holds one takes turns just now
            ),
            parameters,
        )
    turns = []
    for length in lengths:
        turns.append(int(turn))
        turn += length / own.weight
    connection.execute(
        text(
            "UPDATE turns SET next_turn = :next_turn "
            "WHERE queue = :queue AND broadcaster_id = :broadcaster_id AND priority = :rank"
        ),
        parameters | {"next_turn": int(turn)},
    )
    return turns


_NEXT_SQL: dict[WorkQueue, LiteralString] = {
    WorkQueue.SPLIT: """
        SELECT r.received_at AS waits_since FROM recordings r
        WHERE r.state = 'received' AND r.hold IS NULL AND r.priority = c.rank ORDER BY r.turn, r.id LIMIT 1
    """,
    WorkQueue.TRANSCRIBE: """
        SELECT t.created_at AS waits_since FROM segments s JOIN transcripts t ON t.id = s.transcript_id
        WHERE s.state = 'pending' AND s.priority = c.rank ORDER BY s.turn, s.id LIMIT 1
    """,
}


def overdue_rank(connection: Connection, queue: WorkQueue) -> int | None:
    """The class to be served out of its order this time, if one is: see OVERDUE_S. Otherwise None.

    Decided by lot for each claim, so that claimers need not agree on whose turn it is.
    """
    if _LOTS.random() >= OVERDUE_SHARE:
        return None
    rank: int | None = connection.scalar(
        text(
            f"""
            SELECT c.rank FROM (VALUES {", ".join(f"({p.rank})" for p in Priority if p.rank)}) AS c (rank)
            CROSS JOIN LATERAL ({_NEXT_SQL[queue]}) AS head
            WHERE head.waits_since < now() - make_interval(secs => :overdue_s)
            ORDER BY head.waits_since LIMIT 1
            """
        ),
        {"overdue_s": OVERDUE_S},
    )
    return rank


def forget_turns(connection: Connection, flow: Flow) -> None:
    """Begin a flow's turns where its last waiting piece stands: what was taken out of the queue counts no longer."""
    table = "recordings" if flow.queue is WorkQueue.SPLIT else "segments"
    state = "received" if flow.queue is WorkQueue.SPLIT else "pending"
    connection.execute(
        text(
            f"""
            UPDATE turns SET next_turn = coalesce((
                SELECT max(w.turn) FROM {table} w
                WHERE w.state = '{state}' AND w.priority = :rank AND w.broadcaster_id = :broadcaster_id), 0)
            WHERE queue = :queue AND broadcaster_id = :broadcaster_id AND priority = :rank
            """
        ),
        {"queue": flow.queue.value, "broadcaster_id": flow.broadcaster_id, "rank": flow.rank},
    )
