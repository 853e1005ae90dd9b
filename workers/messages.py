"""Delivering messages: webhooks by HTTP, mails by SMTP. Each is tried until it is taken, for three days.

A receiving side that does not answer is asked once a run: what else waits for it waits on, so that a dead webhook holds
up no mail, and neither holds up a night for long. Addresses of webhooks and mail servers may hold secrets: neither logs
nor stored errors name more of them than the host.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import httpx
import structlog
from sqlalchemy import Engine

from db.connect import transaction
from db.messages import ClaimedMessage, claim_message, mark_delivered, mark_failed
from db.quality_schema import Channel
from db.settings import Settings

log = structlog.get_logger(__name__)
logging.getLogger("httpx").setLevel(
    logging.WARNING
)  # it logs whole addresses, and those of webhooks are secrets

WEBHOOK_TIMEOUT_S = 10.0
SMTP_TIMEOUT_S = 30.0
"""For a delivery in all, from the first look-up of the name: a side that drips its answer is cut off as well."""
MAX_DELIVERIES = 100
"""Of a channel in one run: the next run takes the rest."""
RUN_LIMIT = dt.timedelta(seconds=30)
"""After this a run claims no more of a channel, so that nights are not held up: the next run takes the rest. For each
channel by itself: a slow mail server must not keep webhooks from being called."""
THREAD_END_S = 2.0
"""How long the thread of a delivery that was cut off is waited for."""
SIGNATURE_HEADER = "X-Fonoteca-Signature"


class NotDelivered(Exception):
    """The message was not taken. Written for a person, without secrets.

    Attributes:
        is_down: the receiving side as a whole does not work: nothing else should be tried there now.
    """

    def __init__(self, reason: str, *, is_down: bool) -> None:
        super().__init__(reason)
        self.is_down = is_down


Deliver = Callable[[ClaimedMessage, Settings], None]
Clock = Callable[[], dt.datetime]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


Hold = Callable[[socket.socket], None]
"""Told of a socket when it is made, so that whoever waits can cut it off."""


def deliver_messages(engine: Engine, settings: Settings, *, clock: Clock = _utc_now) -> int:
    """Deliver what is due, mails first; how many were taken by their receiving side.

    Args:
        clock: the present moment, asked anew for each message: one that is claimed late is claimed for its full time.
    """
    channels = ((Channel.EMAIL, send_mail), (Channel.WEBHOOK, post_webhook))
    return sum(_deliver_channel(engine, settings, channel, deliver, clock) for channel, deliver in channels)


def _deliver_channel(
    engine: Engine, settings: Settings, channel: Channel, deliver: Deliver, clock: Clock
) -> int:
    n_delivered = 0
    down: set[str] = set()
    until = clock() + RUN_LIMIT
    for _ in range(MAX_DELIVERIES):
        now = clock()
        if now >= until:
            log.info("messages_left_to_the_next_run", channel=channel.value)
            break
        with transaction(engine) as tx:
            message = claim_message(tx.connection, channel, now=now, without=down)
        if message is None:
            break
        known = {"message_id": message.id, "kind": message.kind, "channel": channel.value}
        try:
            deliver(message, settings)
        except NotDelivered as error:
            with transaction(engine) as tx:
                gave_up = mark_failed(tx.connection, message, str(error), now=clock())
            facts = known | {"attempts": message.attempts, "reason": str(error)}
            if gave_up:
                log.error("message_given_up", **facts)
            else:
                log.warning("message_not_delivered", **facts)
            if error.is_down and channel is Channel.EMAIL:
                break  # one server takes all mails
            if error.is_down:
                down.add(message.recipient)
            continue
        with transaction(engine) as tx:
            mark_delivered(tx.connection, message, now=clock())
        log.info("message_delivered", **known, attempts=message.attempts)
        n_delivered += 1
    return n_delivered


# --- deadlines -------------------------------------------------------------------------------------------


T = TypeVar("T")


class _DeadlinePassed(Exception):
    """A delivery took longer than it may."""


def _within(limit_s: float, work: Callable[[Hold], T]) -> T:
    """What `work` returns or raises, in a thread whose sockets are shut down when the time is up.

    The timeouts of httpx and smtplib are for each read: a side that sends a byte now and then never meets them.

    Raises:
        _DeadlinePassed: it did not end in time.
    """
    found: Future[T] = Future()
    lock = threading.Lock()
    sockets: list[socket.socket] = []
    is_over = False

    def hold(made: socket.socket) -> None:
        with lock:
            # a duplicate: closing, or wrapping in TLS, takes the given one away from us, but not the connection
            if is_over:
                _shut(made)
            else:
                sockets.append(made.dup())

    def run() -> None:
        try:
            found.set_result(work(hold))
        except BaseException as error:
            found.set_exception(error)

    # a daemon: one that waits for a name to be looked up cannot be woken, and must not keep the process
    thread = threading.Thread(target=run, name="deliver-message", daemon=True)
    thread.start()
    try:
        done, _ = wait([found], timeout=limit_s)
        if not done:
            raise _DeadlinePassed
        return found.result()
    finally:
        with lock:
            is_over = True
            for made in sockets:
                _shut(made)
                made.close()
        thread.join(THREAD_END_S)


def _shut(made: socket.socket) -> None:
    with suppress(OSError):
        made.shutdown(socket.SHUT_RDWR)


# --- webhooks --------------------------------------------------------------------------------------------


def webhook_payload(message: ClaimedMessage) -> bytes:
    """The JSON that is posted: the same bytes at every attempt."""
    content: dict[str, Any] = {
        "id": message.id,
        "event": message.kind,
        "created_at": message.created_at.astimezone(dt.UTC).isoformat(),
        **message.body,
    }
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


def sign(payload: bytes, secret: str) -> str:
    """The value of the signature header: `sha256=` and the HMAC of the body in hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()


def post_webhook(message: ClaimedMessage, settings: Settings) -> None:
    """Post a message to its webhook. Anything but a 2xx counts as not taken; redirections are not followed.

    Raises:
        NotDelivered: it was not taken.
    """
    payload = webhook_payload(message)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "fonoteca",
        "X-Fonoteca-Event": message.kind,
        "X-Fonoteca-Message": str(message.id),
    }
    if settings.alert_webhook_secret is not None:
        headers[SIGNATURE_HEADER] = sign(payload, settings.alert_webhook_secret.get_secret_value())
    host = _host(message.recipient)

    def post(hold: Hold) -> int:
        def trace(event: str, facts: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                hold(facts["return_value"].get_extra_info("socket"))

        with (
            httpx.Client(timeout=WEBHOOK_TIMEOUT_S, follow_redirects=False) as client,
            # streamed: what the other side answers is not of interest, however much it is
            client.stream(
                "POST", message.recipient, content=payload, headers=headers, extensions={"trace": trace}
            ) as answer,
        ):
            return answer.status_code

    try:
        status = _within(WEBHOOK_TIMEOUT_S, post)
    except (_DeadlinePassed, httpx.TimeoutException) as error:
        reason = f"{host} did not answer within {WEBHOOK_TIMEOUT_S:g} s"
        raise NotDelivered(reason, is_down=True) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        reason = f"{host} cannot be reached ({type(error).__name__}): see FONOTECA_ALERT_WEBHOOK_URL"
        raise NotDelivered(reason, is_down=True) from error
    if not 200 <= status < 300:
        raise NotDelivered(f"{host} answered {status}", is_down=status >= 500 or status == 429)


def _host(url: str) -> str:
    """Host and port of an address, which is all of it that may be shown."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "the server"


# --- mail ------------------------------------------------------------------------------------------------


def make_mail(message: ClaimedMessage, sender: str) -> EmailMessage:
    """The mail of a message. Its Message-ID is the same at every attempt: one delivered twice is seen as one."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = message.recipient
    mail["Subject"] = " ".join(message.subject.split())
    mail["Date"] = format_datetime(message.created_at.astimezone(dt.UTC))
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    mail["Message-ID"] = f"<fonoteca-{message.id}-{int(message.created_at.timestamp())}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(str(message.body.get("text", "")), charset="utf-8", cte="quoted-printable")
    return mail


def send_mail(message: ClaimedMessage, settings: Settings) -> None:
    """Hand a mail to the server of FONOTECA_SMTP_URL.

    Raises:
        NotDelivered: the server did not take it.
    """
    if settings.smtp_url is None:
        raise NotDelivered("FONOTECA_SMTP_URL is not set: there is no mail server to send with", is_down=True)
    server = settings.smtp_url.get_secret_value()
    parts = _smtp_parts(server)
    host = _host(server)
    try:
        mail = make_mail(message, settings.mail_from)
    except ValueError as error:
        raise NotDelivered(f"the mail cannot be written: {error}", is_down=False) from error
    is_taken = threading.Event()

    def send(hold: Hold) -> None:
        client = _connect(parts, hold)
        try:
            client.send_message(
                mail, from_addr=parseaddr(settings.mail_from)[1], to_addrs=[message.recipient]
            )
            is_taken.set()
        finally:
            # taken is taken, whatever becomes of the farewell
            with suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()

    try:
        _within(SMTP_TIMEOUT_S, send)
    except _DeadlinePassed as error:
        if not is_taken.is_set():
            reason = f"{host} did not take the mail within {SMTP_TIMEOUT_S:g} s"
            raise NotDelivered(reason, is_down=True) from error
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise NotDelivered(f"{host} refuses the recipient: {code} {_text(said)}", is_down=False) from error
    except smtplib.SMTPAuthenticationError as error:
        # what the server says may repeat what it was given
        reason = f"{host} refuses user name and password of FONOTECA_SMTP_URL ({error.smtp_code})"
        raise NotDelivered(reason, is_down=True) from error
    except smtplib.SMTPResponseException as error:
        is_down = not isinstance(error, smtplib.SMTPDataError)
        raise NotDelivered(f"{host}: {error.smtp_code} {_text(error.smtp_error)}", is_down=is_down) from error
    except (OSError, smtplib.SMTPException, _Unencrypted) as error:
        raise NotDelivered(f"{host} cannot be used: {error}", is_down=True) from error
    except ValueError as error:
        # its text may repeat what it could not read or encode, such as the password
        reason = (
            f"{host} cannot be used ({type(error).__name__}): see FONOTECA_SMTP_URL and FONOTECA_MAIL_FROM"
        )
        raise NotDelivered(reason, is_down=True) from None


class _Unencrypted(Exception):
    """Credentials would travel so."""


class _Smtp(smtplib.SMTP):
    """A session that tells of its socket before anything is read from it."""

    def __init__(self, hold: Hold, host: str, port: int) -> None:
        self._hold = hold
        super().__init__(host, port, timeout=SMTP_TIMEOUT_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        self._hold(made)
        return made


class _SmtpSsl(smtplib.SMTP_SSL, _Smtp):
    """The same; SMTP_SSL wraps what `_Smtp` gives it."""

    def __init__(self, hold: Hold, host: str, port: int, context: ssl.SSLContext) -> None:
        self._hold = hold
        smtplib.SMTP_SSL.__init__(self, host, port, timeout=SMTP_TIMEOUT_S, context=context)


def _smtp_parts(url: str) -> SplitResult:
    """The parts of FONOTECA_SMTP_URL.

    Raises:
        NotDelivered: it is none. Nothing of it is repeated: a stroke in a password moves the parts about.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        if parts.scheme in ("smtp", "smtps") and parts.hostname and is_bare and parts.port != 0:
            return parts
    raise NotDelivered(
        "FONOTECA_SMTP_URL must have the form smtp://user:password@host:port, or smtps://; signs such as / # ? @ : "
        "in user name and password are written as %2F %23 %3F %40 %3A",
        is_down=True,
    )


def _connect(parts: SplitResult, hold: Hold) -> smtplib.SMTP:
    """A session with the mail server, encrypted where it offers that, logged in where the address has credentials.

    Raises:
        _Unencrypted: credentials would travel so.
        OSError, smtplib.SMTPException: as smtplib does.
    """
    host = parts.hostname or ""
    context = ssl.create_default_context()
    client: smtplib.SMTP
    if parts.scheme == "smtps":
        client = _SmtpSsl(hold, host, parts.port or smtplib.SMTP_SSL_PORT, context)
    else:
        client = _Smtp(hold, host, parts.port or smtplib.SMTP_PORT)
    try:
        client.ehlo()
        if parts.scheme == "smtp" and client.has_extn("starttls"):
            client.starttls(context=context)
            client.ehlo()
        elif parts.scheme == "smtp" and parts.username:
            raise _Unencrypted("it offers no STARTTLS, and the password would travel unencrypted")
        if parts.username:
            client.login(unquote(parts.username), unquote(parts.password or ""))
    except BaseException:
        client.close()
        raise
    return client


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:500]
