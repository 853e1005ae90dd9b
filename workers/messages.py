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
import ssl
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any
from urllib.parse import unquote, urlsplit

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
SMTP_TIMEOUT_S = 20.0
MAX_DELIVERIES = 100
"""Of a channel in one run: the next run takes the rest."""
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


def deliver_messages(engine: Engine, settings: Settings, *, now: dt.datetime | None = None) -> int:
    """Deliver what is due, mails first; how many were taken by their receiving side."""
    moment = now or dt.datetime.now(dt.UTC)
    channels = ((Channel.EMAIL, send_mail), (Channel.WEBHOOK, post_webhook))
    return sum(_deliver_channel(engine, settings, channel, deliver, moment) for channel, deliver in channels)


def _deliver_channel(
    engine: Engine, settings: Settings, channel: Channel, deliver: Deliver, now: dt.datetime
) -> int:
    n_delivered = 0
    down: set[str] = set()
    for _ in range(MAX_DELIVERIES):
        with transaction(engine) as tx:
            message = claim_message(tx.connection, channel, now=now, without=down)
        if message is None:
            break
        known = {"message_id": message.id, "kind": message.kind, "channel": channel.value}
        try:
            deliver(message, settings)
        except NotDelivered as error:
            with transaction(engine) as tx:
                gave_up = mark_failed(tx.connection, message, str(error), now=now)
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
            mark_delivered(tx.connection, message, now=now)
        log.info("message_delivered", **known, attempts=message.attempts)
        n_delivered += 1
    return n_delivered


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
    try:
        with (
            httpx.Client(timeout=WEBHOOK_TIMEOUT_S, follow_redirects=False) as client,
            # streamed: what the other side answers is not of interest, however much it is
            client.stream("POST", message.recipient, content=payload, headers=headers) as answer,
        ):
            status = answer.status_code
    except httpx.TimeoutException as error:
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
        return "the webhook's host"


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
    host = _host(server)
    try:
        mail = make_mail(message, settings.mail_from)
    except ValueError as error:
        raise NotDelivered(f"the mail cannot be written: {error}", is_down=False) from error
    try:
        client = _connect(server)
        try:
            client.send_message(
                mail, from_addr=parseaddr(settings.mail_from)[1], to_addrs=[message.recipient]
            )
        finally:
            # taken is taken, whatever becomes of the farewell
            with suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()
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
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NotDelivered(f"{host} cannot be used: {error}", is_down=True) from error


def _connect(url: str) -> smtplib.SMTP:
    """A session with the mail server, encrypted where it offers that, logged in where the address has credentials.

    Raises:
        ValueError: the address is none, or credentials would travel unencrypted.
        OSError, smtplib.SMTPException: as smtplib does.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("FONOTECA_SMTP_URL must be smtp://host or smtps://host")
    context = ssl.create_default_context()
    if parts.scheme == "smtps":
        port = parts.port or smtplib.SMTP_SSL_PORT
        client: smtplib.SMTP = smtplib.SMTP_SSL(parts.hostname, port, timeout=SMTP_TIMEOUT_S, context=context)
    else:
        client = smtplib.SMTP(parts.hostname, parts.port or smtplib.SMTP_PORT, timeout=SMTP_TIMEOUT_S)
    try:
        client.ehlo()
        if parts.scheme == "smtp" and client.has_extn("starttls"):
            client.starttls(context=context)
            client.ehlo()
        elif parts.scheme == "smtp" and parts.username:
            raise ValueError("it offers no STARTTLS, and the password would travel unencrypted")
        if parts.username:
            client.login(unquote(parts.username), unquote(parts.password or ""))
    except BaseException:
        client.close()
        raise
    return client


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:500]
