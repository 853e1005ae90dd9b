"""Messages to real web and mail servers: delivered, retried, given up, and never with a secret shown."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from pydantic import SecretStr
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from db.connect import transaction
from db.messages import GIVE_UP_AFTER, NewMessage, add_message, claim_message, retry_delay
from db.quality_schema import Channel, MessageKind
from db.settings import Settings
from workers import messages
from workers.messages import deliver_messages, sign

SECRET = "s3cr3t-token"
NIGHT = dt.date(2026, 11, 22)


@dataclass
class Hook:
    """A web server that takes what is posted."""

    url: str = ""
    status: int = 204
    location: str | None = None
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    on_post: Callable[[], None] | None = None


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.received.append((self.path, dict(self.headers), body))
            if hook.on_post:
                hook.on_post()
            self.send_response(hook.status)
            if hook.location:
                self.send_header("Location", hook.location)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/hooks/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    server.shutdown()
    server.server_close()
    thread.join()


class Mailbox:
    """What a mail server took."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refused: set[str] = set()
        self.answer = "250 taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            mail = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.recipients.append(envelope.rcpt_tos)
        return self.answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def start_mail(mailbox: Mailbox) -> Iterator[Callable[..., int]]:
    """`start_mail(**options)`: the port of a mail server with these options of aiosmtpd."""
    started: list[Controller] = []

    def start(**options: Any) -> int:
        controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
        controller.start()
        started.append(controller)
        return int(controller.port)

    yield start
    for controller in started:
        controller.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def night(engine: Engine) -> dt.date:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, from_at, until_at) "
                "VALUES (:night, now() - interval '1 day', now())"
            ),
            {"night": NIGHT},
        )
    return NIGHT


@pytest.fixture
def put(engine: Engine, night: dt.date) -> Callable[..., None]:
    """`put(channel, recipient)`: a message that waits."""

    def put(
        channel: Channel, recipient: str, subject: str = "Informe", body: dict[str, Any] | None = None
    ) -> None:
        with transaction(engine) as tx:
            message = NewMessage(
                MessageKind.REPORT, channel, recipient, subject, body or {"text": "Boas noites."}, night=night
            )
            add_message(tx.connection, message)

    return put


@pytest.fixture
def states(engine: Engine) -> Callable[[], list[tuple[Any, ...]]]:
    def read() -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT recipient, attempts, delivered_at IS NOT NULL, gave_up_at IS NOT NULL, last_error "
                    "FROM messages ORDER BY id"
                )
            )
            return [tuple(row) for row in rows]

    return read


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def fixed(moment: dt.datetime) -> Callable[[], dt.datetime]:
    return lambda: moment


# --- webhooks --------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_and_delivered_once(
    engine: Engine, settings: Settings, hook: Hook, put: Any, states: Any
) -> None:
    put(Channel.WEBHOOK, hook.url, body={"alert": {"subject": "Transcrición"}})
    put(Channel.WEBHOOK, hook.url)  # the same again: one is enough
    signing = settings.model_copy(update={"alert_webhook_secret": SecretStr("key")})
    assert deliver_messages(engine, signing) == 1
    assert deliver_messages(engine, signing) == 0
    ((path, headers, body),) = hook.received
    assert path == f"/hooks/{SECRET}"
    content = json.loads(body)
    assert content["event"] == "report"
    assert content["alert"] == {"subject": "Transcrición"}
    assert headers["X-Fonoteca-Message"] == str(content["id"])
    assert headers["X-Fonoteca-Event"] == "report"
    assert headers["X-Fonoteca-Signature"] == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()
    assert sign(body, "key") == headers["X-Fonoteca-Signature"]
    assert states() == [(hook.url, 1, True, False, None)]


def test_without_a_secret_nothing_is_signed(engine: Engine, settings: Settings, hook: Hook, put: Any) -> None:
    put(Channel.WEBHOOK, hook.url)
    deliver_messages(engine, settings)
    assert "X-Fonoteca-Signature" not in hook.received[0][1]


@pytest.mark.parametrize("status", [301, 404, 500])
def test_what_is_not_taken_is_tried_again_and_looks_the_same(
    engine: Engine, settings: Settings, hook: Hook, put: Any, states: Any, status: int
) -> None:
    put(Channel.WEBHOOK, hook.url)
    hook.status, hook.location = status, hook.url
    begun = now()
    assert deliver_messages(engine, settings, clock=fixed(begun)) == 0
    assert states() == [(hook.url, 1, False, False, f"{hook.url.split('/')[2]} answered {status}")]
    assert deliver_messages(engine, settings, clock=fixed(begun + dt.timedelta(seconds=59))) == 0
    assert len(hook.received) == 1, "no redirection is followed, and nothing is tried before its time"
    hook.status = 200
    assert deliver_messages(engine, settings, clock=fixed(begun + dt.timedelta(seconds=60))) == 1
    assert hook.received[0][2] == hook.received[1][2]


def test_waiting_grows_from_a_minute_to_an_hour() -> None:
    minutes = [retry_delay(n).total_seconds() / 60 for n in range(1, 9)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retry_delay(10_000) == dt.timedelta(hours=1)


def test_after_three_days_it_is_given_up_with_an_error(
    engine: Engine, settings: Settings, put: Any, states: Any, hook: Hook
) -> None:
    put(Channel.WEBHOOK, hook.url)
    hook.status = 503
    begun = now()
    with capture_logs() as logs:
        for hours in (0, 24, 71.9):
            assert deliver_messages(engine, settings, clock=fixed(begun + dt.timedelta(hours=hours))) == 0
            assert states()[0][3] is False
        deliver_messages(engine, settings, clock=fixed(begun + GIVE_UP_AFTER + dt.timedelta(hours=1)))
    assert states() == [(hook.url, 4, False, True, f"{hook.url.split('/')[2]} answered 503")]
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == ["message_given_up"]
    deliver_messages(engine, settings, clock=fixed(begun + dt.timedelta(days=5)))
    assert len(hook.received) == 4


def test_secrets_are_in_no_log_and_no_error(
    engine: Engine,
    settings: Settings,
    hook: Hook,
    put: Any,
    states: Any,
    caplog: pytest.LogCaptureFixture,
    start_mail: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    put(Channel.WEBHOOK, hook.url)
    put(Channel.WEBHOOK, f"http://user:{SECRET}@127.0.0.1:{free_port()}/{SECRET}")
    put(Channel.WEBHOOK, f"not an address {SECRET}")
    put(Channel.EMAIL, "noa@example.org")
    port = start_mail()
    secrets = {
        "smtp_url": SecretStr(f"smtp://noa:{SECRET}@127.0.0.1:{port}"),
        "alert_webhook_secret": SecretStr(SECRET),
    }
    with capture_logs() as logs:
        assert deliver_messages(engine, settings.model_copy(update=secrets)) == 1
    assert SECRET not in str(logs)
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if record.name != "asyncio")
    errors = [row[4] for row in states()]
    assert SECRET not in str(errors)
    assert errors[3] == (
        f"127.0.0.1:{port} cannot be used: it offers no STARTTLS, and the password would travel unencrypted"
    )


def test_a_dead_webhook_is_asked_once_and_holds_up_nothing(
    engine: Engine,
    settings: Settings,
    hook: Hook,
    put: Any,
    states: Any,
    start_mail: Any,
    mailbox: Mailbox,
    night: dt.date,
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/"
    with engine.begin() as connection:
        for n in range(1, 4):
            connection.execute(
                text(
                    "INSERT INTO quality_nights (night, from_at, until_at) "
                    "VALUES (:night, now() - interval '1 day', now())"
                ),
                {"night": NIGHT + dt.timedelta(days=n)},
            )
            add_message(
                connection,
                NewMessage(
                    MessageKind.REPORT, Channel.WEBHOOK, dead, "s", {}, night=NIGHT + dt.timedelta(days=n)
                ),
            )
    put(Channel.WEBHOOK, hook.url)
    put(Channel.EMAIL, "noa@example.org")
    mail = {"smtp_url": SecretStr(f"smtp://127.0.0.1:{start_mail()}")}
    assert deliver_messages(engine, settings.model_copy(update=mail)) == 2
    assert len(mailbox.mails) == 1
    assert len(hook.received) == 1
    assert [row[1] for row in states()] == [1, 0, 0, 1, 1]


# --- deadlines -------------------------------------------------------------------------------------------


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of a server that sends a byte every 50 ms, and never ends its answer."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def drip(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.sendall(b"2")
            while not stop.wait(0.05):
                peer.sendall(b"0")

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = server.accept()
                threads.append(threading.Thread(target=drip, args=(peer,)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    yield int(server.getsockname()[1])
    stop.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("scheme", ["http", "https", "smtp", "smtps"])
def test_a_side_that_drips_is_cut_off(
    engine: Engine,
    settings: Settings,
    put: Any,
    states: Any,
    dripping: int,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    monkeypatch.setattr(messages, "WEBHOOK_TIMEOUT_S", 0.5)
    monkeypatch.setattr(messages, "SMTP_TIMEOUT_S", 0.5)
    address = f"{scheme}://127.0.0.1:{dripping}"
    if scheme.startswith("http"):
        put(Channel.WEBHOOK, address)
    else:
        put(Channel.EMAIL, "noa@example.org")
        settings = settings.model_copy(update={"smtp_url": SecretStr(address)})
    begun = time.monotonic()
    assert deliver_messages(engine, settings) == 0
    assert time.monotonic() - begun < 2
    assert "deliver-message" not in {thread.name for thread in threading.enumerate()}
    ((_, attempts, is_delivered, _, error),) = states()
    assert (attempts, is_delivered) == (1, False)
    if not scheme.endswith("s"):  # TLS gives up at the first bytes, which are none of its own
        assert "within 0.5 s" in error


def test_slow_deliveries_are_claimed_for_their_full_time_and_left_to_the_next_run(
    engine: Engine, settings: Settings, hook: Hook, put: Any, states: Any
) -> None:
    for n in range(6):
        put(Channel.WEBHOOK, f"{hook.url}/{n}")
    moment = now()
    claimed_for: list[float] = []

    def slow() -> dt.datetime:
        return moment + dt.timedelta(seconds=12 * len(claimed_for))

    def look() -> None:
        with engine.connect() as connection:
            until = connection.scalar(
                text("SELECT next_attempt_at FROM messages WHERE attempts = 1 AND delivered_at IS NULL")
            )
        claimed_for.append((until - slow()).total_seconds())

    hook.on_post = look
    assert deliver_messages(engine, settings, clock=slow) == 3, "after half a minute none is claimed"
    assert claimed_for == [600, 600, 600]
    with engine.connect() as connection:
        delivered = connection.scalars(
            text("SELECT delivered_at FROM messages WHERE delivered_at IS NOT NULL ORDER BY delivered_at")
        ).all()
    assert [(at - moment).total_seconds() for at in delivered] == [12, 24, 36]
    assert deliver_messages(engine, settings, clock=slow) == 3, "the next run goes on"


@pytest.mark.parametrize(
    "address",
    [
        "smtp://ana:s3cret/pw@host:587",
        "smtp://ana:s3cret#pw@host:587",
        "smtp://ana:587/s3cret@host",
        "smtp://ana:[s3cret@host",
        "ana:s3cret@host",
        "smtp://",
    ],
)
def test_an_address_that_is_none_is_not_repeated(
    engine: Engine, settings: Settings, put: Any, states: Any, address: str
) -> None:
    put(Channel.EMAIL, "noa@example.org")
    with capture_logs() as logs:
        deliver_messages(engine, settings.model_copy(update={"smtp_url": SecretStr(address)}))
    error = states()[0][4]
    assert "FONOTECA_SMTP_URL must have the form smtp://user:password@host:port" in error
    for secret in ("s3cret", "ana", "587"):
        assert secret not in error + str(logs)


# --- who delivers ----------------------------------------------------------------------------------------


def test_two_beats_at_once_deliver_each_message_once(
    engine: Engine, settings: Settings, hook: Hook, put: Any, states: Any
) -> None:
    for n in range(12):
        put(Channel.WEBHOOK, f"{hook.url}/{n}")
    gate, delivered = threading.Barrier(3), []

    def at_once() -> None:
        gate.wait()
        delivered.append(deliver_messages(engine, settings))

    threads = [threading.Thread(target=at_once) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(delivered) == 12
    assert len({path for path, _, _ in hook.received}) == len(hook.received) == 12
    assert {row[1:4] for row in states()} == {(1, True, False)}


def test_a_deliverer_that_dies_leaves_the_message_to_the_next(
    engine: Engine, settings: Settings, hook: Hook, put: Any, states: Any
) -> None:
    put(Channel.WEBHOOK, hook.url)
    moment = now()
    with transaction(engine) as tx:
        claimed = claim_message(tx.connection, Channel.WEBHOOK, now=moment)
    assert claimed is not None  # and here it dies
    assert deliver_messages(engine, settings, clock=fixed(moment + dt.timedelta(minutes=9))) == 0
    assert deliver_messages(engine, settings, clock=fixed(moment + dt.timedelta(minutes=10))) == 1
    assert states() == [(hook.url, 2, True, False, None)]


# --- mail ------------------------------------------------------------------------------------------------


def test_a_mail_arrives_as_it_was_written(
    engine: Engine, settings: Settings, put: Any, start_mail: Any, mailbox: Mailbox, states: Any
) -> None:
    body = "Máis erros en «Diario».\n" + "palabra " * 300 + "\n.\nFin."
    put(Channel.EMAIL, "noa@example.org", "Fonoteca: máis erros\nBcc: outra@example.org", {"text": body})
    put(Channel.EMAIL, "uxia@example.org")
    mail = {
        "smtp_url": SecretStr(f"smtp://127.0.0.1:{start_mail()}"),
        "mail_from": "Fonoteca <avisos@radio.example>",
    }
    assert deliver_messages(engine, settings.model_copy(update=mail)) == 2
    assert mailbox.recipients == [["noa@example.org"], ["uxia@example.org"]]
    first = mailbox.mails[0]
    assert first["Subject"] == "Fonoteca: máis erros Bcc: outra@example.org"
    assert first["Bcc"] is None
    assert first["From"] == "Fonoteca <avisos@radio.example>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first.get_content().rstrip("\r\n").replace("\r\n", "\n") == body
    assert first.get_content_type() == "text/plain"
    assert first["Date"].datetime <= now()
    assert first["Message-ID"].endswith("@radio.example>")
    assert first["Message-ID"] != mailbox.mails[1]["Message-ID"]


def test_a_mail_that_is_sent_again_has_the_same_id(
    engine: Engine, settings: Settings, put: Any, start_mail: Any, mailbox: Mailbox
) -> None:
    put(Channel.EMAIL, "noa@example.org")
    sending = settings.model_copy(update={"smtp_url": SecretStr(f"smtp://127.0.0.1:{start_mail()}")})
    deliver_messages(engine, sending)
    with engine.begin() as connection:  # as if it had died before it could say so
        connection.execute(text("UPDATE messages SET delivered_at = NULL, next_attempt_at = now()"))
    deliver_messages(engine, sending)
    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] == second["Date"]


def test_one_refused_recipient_does_not_keep_the_others_waiting(
    engine: Engine, settings: Settings, put: Any, start_mail: Any, mailbox: Mailbox, states: Any
) -> None:
    mailbox.refused.add("gone@example.org")
    for name in ("gone", "noa", "uxia"):
        put(Channel.EMAIL, f"{name}@example.org")
    port = start_mail()
    sending = settings.model_copy(update={"smtp_url": SecretStr(f"smtp://127.0.0.1:{port}")})
    assert deliver_messages(engine, sending) == 2
    assert states()[0][1:] == (
        1,
        False,
        False,
        f"127.0.0.1:{port} refuses the recipient: 550 no such mailbox",
    )


def test_without_a_mail_server_mails_wait_and_say_why(
    engine: Engine, settings: Settings, put: Any, states: Any
) -> None:
    put(Channel.EMAIL, "noa@example.org")
    put(Channel.EMAIL, "uxia@example.org")
    assert deliver_messages(engine, settings) == 0
    assert [row[1] for row in states()] == [1, 0], "one try tells enough"
    assert "FONOTECA_SMTP_URL is not set" in states()[0][4]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS with a certificate for `localhost` that this process trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - dt.timedelta(days=1))
        .not_valid_after(now() + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def only_noa(server: SMTP, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> AuthResult:
    is_noa = (auth_data.login, auth_data.password) == (b"noa@radio", SECRET.encode())
    return AuthResult(success=is_noa, handled=False)


def test_credentials_travel_encrypted_only(
    engine: Engine,
    settings: Settings,
    put: Any,
    start_mail: Any,
    mailbox: Mailbox,
    states: Any,
    certificate: ssl.SSLContext,
) -> None:
    port = start_mail(tls_context=certificate, authenticator=only_noa, auth_required=True)
    put(Channel.EMAIL, "noa@example.org")

    def deliver(login: str, at: dt.datetime) -> int:
        address = SecretStr(f"smtp://{login}@localhost:{port}")
        return deliver_messages(engine, settings.model_copy(update={"smtp_url": address}), clock=fixed(at))

    moment = now()
    assert deliver("noa%40radio:wrong", moment) == 0
    error = states()[0][4]
    assert error == f"localhost:{port} refuses user name and password of FONOTECA_SMTP_URL (535)"
    assert deliver(f"noa%40radio:{SECRET}", moment + dt.timedelta(minutes=1)) == 1
    assert len(mailbox.mails) == 1


def test_a_certificate_that_is_not_trusted_is_refused(
    engine: Engine,
    settings: Settings,
    put: Any,
    start_mail: Any,
    states: Any,
    certificate: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = start_mail(tls_context=certificate)
    monkeypatch.delenv("SSL_CERT_FILE")
    put(Channel.EMAIL, "noa@example.org")
    address = SecretStr(f"smtp://localhost:{port}")
    assert deliver_messages(engine, settings.model_copy(update={"smtp_url": address})) == 0
    assert "CERTIFICATE_VERIFY_FAILED" in states()[0][4]
