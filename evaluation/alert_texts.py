"""Mails about alerts, in Galician, Spanish and English: what happened, the figures, where, what else changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from db.alerts import AlertRow
from db.quality_schema import AlertKind, MessageKind


class Text(NamedTuple):
    """One text in three languages."""

    gl: str
    es: str
    en: str


TEXTS: dict[str, Text] = {
    "opened": Text("Alerta", "Alerta", "Alert"),
    "closed": Text("Alerta pechada", "Alerta cerrada", "Alert closed"),
    "regression": Text(
        "máis erros en {subject} ca na liña base",
        "más errores en {subject} que en la línea base",
        "more errors on {subject} than in the baseline",
    ),
    "drift": Text(
        "máis erros na produción ca na xanela de referencia",
        "más errores en la producción que en la ventana de referencia",
        "more errors in production than in the reference window",
    ),
    "not_measured": Text(
        "{subject} segue sen medir", "{subject} sigue sin medir", "{subject} is not measured"
    ),
    "production": Text("a deriva na produción", "la deriva en la producción", "drift in production"),
    "night": Text("Noite: {night}", "Noche: {night}", "Night: {night}"),
    "wer": Text(
        "Taxa de erro de palabras: {wer} %; esperable: {expected} %",
        "Tasa de error de palabras: {wer} %; esperable: {expected} %",
        "Word error rate: {wer} %; expected: {expected} %",
    ),
    "difference": Text(
        "Diferenza desta noite: {difference} puntos (intervalo do 95 %: de {low} a {high})",
        "Diferencia de esta noche: {difference} puntos (intervalo del 95 %: de {low} a {high})",
        "Difference tonight: {difference} points (95 % interval {low} to {high})",
    ),
    "nights": Text(
        "Noites que dura: {nights}", "Noches que dura: {nights}", "Nights that it has lasted: {nights}"
    ),
    "where": Text("Onde destaca: {where}", "Dónde destaca: {where}", "Where it stands out: {where}"),
    "changed": Text("Que cambiou: {what}", "Qué ha cambiado: {what}", "What changed: {what}"),
    "model": Text("o modelo", "el modelo", "the model"),
    "code_version": Text("a versión do código", "la versión del código", "the code version"),
    "decode_settings": Text("a descodificación", "la decodificación", "the decode settings"),
    "prompt": Text("a instrución", "la instrucción", "the prompt"),
    "device": Text("o dispositivo", "el dispositivo", "the device"),
    "reason": Text("Motivo: {reason}", "Motivo: {reason}", "Reason: {reason}"),
    "closed_by": Text("Pechouna {by}: {reason}", "La ha cerrado {by}: {reason}", "Closed by {by}: {reason}"),
    "opened_night": Text(
        "Aberta desde a noite: {night}", "Abierta desde la noche: {night}", "Open since the night: {night}"
    ),
    "more": Text(
        "O informe da noite: fonoteca report --date {night} --open\n"
        'Que facer: docs/nights.md. Pechar a man: fonoteca alerts close {id} --reason "..."',
        "El informe de la noche: fonoteca report --date {night} --open\n"
        'Qué hacer: docs/nights.md. Cerrar a mano: fonoteca alerts close {id} --reason "..."',
        "The night's report: fonoteca report --date {night} --open\n"
        'What to do: docs/nights.md. To close it by hand: fonoteca alerts close {id} --reason "..."',
    ),
}
MAX_NAMES = 5

Say = Callable[..., str]


def _speaker(language: str) -> Say:
    def say(key: str, /, **values: object) -> str:
        return str(getattr(TEXTS[key], language)).format(**values)

    return say


def mail_subject(kind: MessageKind, alert: AlertRow, language: str) -> str:
    """Subject line: `Fonoteca: alert: more errors on Transcrispeech than in the baseline`."""
    say = _speaker(language)
    state = say("opened" if kind is MessageKind.ALERT_OPENED else "closed")
    return f"Fonoteca: {state}: {_headline(say, alert)}"


def mail_text(kind: MessageKind, alert: AlertRow, language: str) -> str:
    """The mail's text. What is quoted as stored (reasons) is in the language it was written in."""
    say = _speaker(language)
    lines = [_capital(_headline(say, alert)) + "."]
    if kind is MessageKind.ALERT_CLOSED:
        lines += [
            say("closed_by", by=alert.closed_by, reason=alert.close_reason),
            say("opened_night", night=alert.opened_night),
        ]
    else:
        lines += _figures(say, alert.evidence, _number(language))
    return "\n".join([*lines, "", say("more", night=alert.last_night, id=alert.id), ""])


def _headline(say: Say, alert: AlertRow) -> str:
    subject = alert.subject
    if alert.kind == AlertKind.NOT_MEASURED and alert.evidence.get("question") == "drift":
        subject = say("production")
    return say(alert.kind, subject=subject)


def _figures(say: Say, evidence: dict[str, Any], number: Callable[..., str]) -> list[str]:
    lines = [say("night", night=evidence["night"])]
    wer, expected, difference, low, high = (
        evidence.get(name)
        for name in ("wer", "baseline_wer", "difference", "difference_low", "difference_high")
    )
    if wer is not None and expected is not None:
        lines.append(say("wer", wer=number(wer), expected=number(expected)))
    if difference is not None and low is not None and high is not None:
        values = {"difference": difference, "low": low, "high": high}
        signed = {name: number(value, sign=True) for name, value in values.items()}
        lines.append(say("difference", **signed))
    if evidence.get("nights"):
        lines.append(say("nights", nights=evidence["nights"]))
    inner = evidence.get("evidence") or {}
    if standouts := inner.get("standouts"):
        programmes = [each for each in standouts if each["kind"] == "programme"] or standouts
        named = [
            f"{each['name']} ({number(each['difference'], sign=True)})" for each in programmes[:MAX_NAMES]
        ]
        lines.append(say("where", where=", ".join(named)))
    for name, change in (inner.get("changes") or {}).items():
        lines.append(say("changed", what=f"{say(name)}: {change['before']} -> {change['now']}"))
    if reason := inner.get("reason"):
        lines.append(say("reason", reason=reason))
    return lines


def _number(language: str) -> Callable[..., str]:
    def write(rate: float, *, sign: bool = False) -> str:
        text = f"{100 * rate:{'+' if sign else ''}.2f}"
        return text if language == "en" else text.replace(".", ",")

    return write


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
