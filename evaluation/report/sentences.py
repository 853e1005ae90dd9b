"""Every word of the report in Galician, Spanish and English. Galician follows the norms of the Real Academia Galega.

A text is looked up by its key, with the same fields in braces in all three languages. Where a number decides the form,
there are two keys, `<key>.one` and `<key>.other`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

NO_BREAK = "\u00a0"


class Language(StrEnum):
    """Languages of the report, by their ISO 639-1 code."""

    GL = "gl"
    ES = "es"
    EN = "en"


LANGUAGE_NAMES = {Language.GL: "Galego", Language.ES: "Español", Language.EN: "English"}


class Text(NamedTuple):
    """One text in three languages."""

    gl: str
    es: str
    en: str


TEXTS: dict[str, Text] = {
    # --- the page as a whole
    "title": Text("Informe de calidade", "Informe de calidad", "Quality report"),
    "night_of": Text("Noite do {date}", "Noche del {date}", "Night of {date}"),
    "other_languages": Text("Outras linguas", "Otros idiomas", "Other languages"),
    "skip": Text("Saltar ao contido", "Saltar al contenido", "Skip to the content"),
    "demo": Text(
        "Modelo de demostración: pequeno e adestrado con voz sintética. As súas cifras non din nada do modelo de "
        "produción.",
        "Modelo de demostración: pequeño y entrenado con voz sintética. Sus cifras no dicen nada del modelo de "
        "producción.",
        "Demo model: small, and trained on synthetic speech. Its figures say nothing about the production model.",
    ),
    "demo_short": Text("modelo de demostración", "modelo de demostración", "demo model"),
    "points": Text("puntos", "puntos", "points"),
    "interval_95": Text("intervalo do 95 %", "intervalo del 95 %", "95 % interval"),
    "from_to": Text("de {low} a {high}", "de {low} a {high}", "{low} to {high}"),
    "none": Text("ningún", "ninguno", "none"),
    "and": Text(" e ", " y ", " and "),
    # --- verdicts and subjects
    "verdict.ok": Text("sen cambios", "sin cambios", "ok"),
    "verdict.watch": Text("en observación", "en observación", "watch"),
    "verdict.regressed": Text("empeorou", "ha empeorado", "regressed"),
    "verdict.improved": Text("mellorou", "ha mejorado", "improved"),
    "verdict.not_measured": Text("sen medir", "sin medir", "not measured"),
    "subject.production": Text("Produción", "Producción", "Production"),
    "subject.unreferenced": Text("Sen referencias", "Sin referencias", "Without references"),
    "question.regression": Text("Regresión", "Regresión", "Regression"),
    "question.drift": Text("Deriva", "Deriva", "Drift"),
    "question.unreferenced": Text(
        "Medidas sen referencias", "Medidas sin referencias", "Measures without references"
    ),
    "question.not_measured": Text("Sen medir", "Sin medir", "Not measured"),
    # --- the sentence of a verdict: what happened ...
    "what.regression.regressed": Text(
        "Regresión en {subject}", "Regresión en {subject}", "Regression on {subject}"
    ),
    "what.regression.improved": Text(
        "Mellora en {subject}", "Mejora en {subject}", "Improvement on {subject}"
    ),
    "what.drift.regressed": Text("Deriva na produción", "Deriva en la producción", "Drift in production"),
    "what.drift.improved": Text(
        "Menos erros na produción", "Menos errores en la producción", "Fewer errors in production"
    ),
    "what.regression.watch": Text(
        "Primeiro indicio de máis erros en {subject}",
        "Primer indicio de más errores en {subject}",
        "A first sign of more errors on {subject}",
    ),
    "what.drift.watch": Text(
        "Primeiro indicio de máis erros na produción",
        "Primer indicio de más errores en la producción",
        "A first sign of more errors in production",
    ),
    "what.regression.below_margin": Text(
        "Cambio seguro pero pequeno en {subject}",
        "Cambio seguro pero pequeño en {subject}",
        "A sure but small change on {subject}",
    ),
    "what.drift.below_margin": Text(
        "Cambio seguro pero pequeno na produción",
        "Cambio seguro pero pequeño en la producción",
        "A sure but small change in production",
    ),
    "what.regression.not_measured": Text(
        "{subject} quedou sen medir", "{subject} ha quedado sin medir", "{subject} was not measured"
    ),
    "what.drift.not_measured": Text(
        "A deriva na produción quedou sen medir",
        "La deriva en la producción ha quedado sin medir",
        "Drift in production was not measured",
    ),
    "what.regression.ok": Text("{subject} segue igual", "{subject} sigue igual", "{subject} is as it was"),
    "what.drift.ok": Text("A produción segue igual", "La producción sigue igual", "Production is as it was"),
    "what.unreferenced.watch.one": Text(
        "Unha medida sen referencias afástase do seu historial",
        "Una medida sin referencias se aparta de su historial",
        "One measure without references departs from its history",
    ),
    "what.unreferenced.watch.other": Text(
        "{n} medidas sen referencias afástanse do seu historial",
        "{n} medidas sin referencias se apartan de su historial",
        "{n} measures without references depart from their history",
    ),
    "what.unreferenced.ok": Text(
        "Ningunha medida sen referencias se afasta do seu historial",
        "Ninguna medida sin referencias se aparta de su historial",
        "No measure without references departs from its history",
    ),
    "what.unreferenced.not_measured": Text(
        "Aínda non hai historial co que comparar as medidas sen referencias",
        "Todavía no hay historial con el que comparar las medidas sin referencias",
        "There is no history yet to compare measures without references with",
    ),
    # --- ... by how much ...
    "change.regression.above": Text(
        "a taxa de erro de palabras está {effect} puntos por riba da liña base",
        "la tasa de error de palabras está {effect} puntos por encima de la línea base",
        "the word error rate is {effect} points above the baseline",
    ),
    "change.regression.below": Text(
        "a taxa de erro de palabras está {effect} puntos por baixo da liña base",
        "la tasa de error de palabras está {effect} puntos por debajo de la línea base",
        "the word error rate is {effect} points below the baseline",
    ),
    "change.drift.above": Text(
        "a taxa de erro de palabras dos segmentos corrixidos está {effect} puntos por riba do que deixa esperar a "
        "xanela de referencia",
        "la tasa de error de palabras de los segmentos corregidos está {effect} puntos por encima de lo que deja "
        "esperar la ventana de referencia",
        "the word error rate of corrected segments is {effect} points above what the reference window lets expect",
    ),
    "change.drift.below": Text(
        "a taxa de erro de palabras dos segmentos corrixidos está {effect} puntos por baixo do que deixa esperar a "
        "xanela de referencia",
        "la tasa de error de palabras de los segmentos corregidos está {effect} puntos por debajo de lo que deja "
        "esperar la ventana de referencia",
        "the word error rate of corrected segments is {effect} points below what the reference window lets expect",
    ),
    "change.regression.none": Text(
        "non se aprecia ningún cambio fronte á liña base ({rate} de erro de palabras)",
        "no se aprecia ningún cambio frente a la línea base ({rate} de error de palabras)",
        "no change from the baseline is seen ({rate} word error rate)",
    ),
    "change.drift.none": Text(
        "non se aprecia ningún cambio fronte á xanela de referencia ({rate} de erro de palabras esperable)",
        "no se aprecia ningún cambio frente a la ventana de referencia ({rate} de error de palabras esperable)",
        "no change from the reference window is seen ({rate} word error rate expected)",
    ),
    "since": Text(" desde a noite do {date}", " desde la noche del {date}", " since the night of {date}"),
    "where": Text(", sobre todo en {names}", ", sobre todo en {names}", ", most of all in {names}"),
    # --- ... and how surely
    "how.one_night": Text(
        "demóstrao esta noite por si soa", "lo demuestra esta noche por sí sola", "tonight alone shows it"
    ),
    "how.chart": Text(
        "demóstrano as noites en conxunto",
        "lo demuestran las noches en conjunto",
        "the nights together show it",
    ),
    "how.below_margin": Text(
        "son menos dos {margin} puntos que importan",
        "son menos de los {margin} puntos que importan",
        "it is less than the {margin} points that matter",
    ),
    "tonight": Text(
        "Esta noite, {difference} puntos (intervalo do 95 %: de {low} a {high}).",
        "Esta noche, {difference} puntos (intervalo del 95 %: de {low} a {high}).",
        "Tonight {difference} points (95 % interval {low} to {high}).",
    ),
    "changed": Text(
        "Desde a liña base cambiou: {names}.",
        "Desde la línea base ha cambiado: {names}.",
        "Changed since the baseline: {names}.",
    ),
    "change_of.model": Text("o modelo", "el modelo", "the model"),
    "change_of.code_version": Text("o código", "el código", "the code"),
    "change_of.decode_settings": Text("a descodificación", "la decodificación", "the decoding"),
    "change_of.prompt": Text("a instrución", "la instrucción", "the prompt"),
    "change_of.device": Text("o dispositivo", "el dispositivo", "the device"),
    "lasting.one": Text(
        "Dura unha noite medida.", "Dura una noche medida.", "It has lasted one measured night."
    ),
    "lasting.other": Text(
        "Dura {n} noites medidas.", "Dura {n} noches medidas.", "It has lasted {n} measured nights."
    ),
    "missing.one": Text(
        "Leva unha noite sen medida.", "Lleva una noche sin medida.", "Not measured for one night."
    ),
    "missing.other": Text(
        "Leva {n} noites seguidas sen medida.",
        "Lleva {n} noches seguidas sin medida.",
        "Not measured for {n} nights in a row.",
    ),
    "no_spread": Text(
        "A cifra desta noite non se pode xulgar: non se coñece a súa dispersión.",
        "La cifra de esta noche no se puede juzgar: no se conoce su dispersión.",
        "Tonight's figure cannot be judged: its spread is not known.",
    ),
    # --- headline
    "headline.ok": Text(
        "A calidade mantense: non se aprecia ningún cambio en {subjects}",
        "La calidad se mantiene: no se aprecia ningún cambio en {subjects}",
        "Quality holds: no change is seen in {subjects}",
    ),
    "headline.nothing": Text(
        "Esta noite non se mediu nada", "Esta noche no se ha medido nada", "Nothing was measured tonight"
    ),
    "others": Text("; tamén {names}", "; también {names}", "; also {names}"),
    "more.one": Text("outro máis", "otro más", "one more"),
    "more.other": Text("outros {n}", "otros {n}", "{n} more"),
    "subjects.one": Text("unha pregunta", "una pregunta", "one question"),
    "subjects.other": Text("{n} preguntas", "{n} preguntas", "{n} questions"),
    "open_alerts.none": Text(
        "Non hai ningunha alerta aberta.", "No hay ninguna alerta abierta.", "No alert is open."
    ),
    "open_alerts.one": Text("Hai unha alerta aberta.", "Hay una alerta abierta.", "One alert is open."),
    "open_alerts.other": Text(
        "Hai {n} alertas abertas.", "Hay {n} alertas abiertas.", "{n} alerts are open."
    ),
    # --- alerts
    "alerts": Text("Alertas", "Alertas", "Alerts"),
    "alert.opened": Text(
        "Aberta a noite do {date}", "Abierta la noche del {date}", "Opened in the night of {date}"
    ),
    "alert.new": Text("nova esta noite", "nueva esta noche", "new tonight"),
    "alert.closed": Text("pechada esta noite", "cerrada esta noche", "closed tonight"),
    "alert.quiet.one": Text("unha noite tranquila", "una noche tranquila", "one quiet night"),
    "alert.quiet.other": Text("{n} noites tranquilas", "{n} noches tranquilas", "{n} quiet nights"),
    "alert.by": Text("pechada por {name}", "cerrada por {name}", "closed by {name}"),
    # --- history
    "history": Text("Noite a noite", "Noche a noche", "Night by night"),
    "history.note": Text(
        "Liña: taxa de erro de palabras (WER) de cada noite. Banda: intervalo do 95 % do cambio fronte á liña base, "
        "medido sobre o mesmo audio; cando non toca a liña descontinua, o cambio dese día é seguro. Debaixo: proba "
        "acumulada (CUSUM) de máis erros e de menos; ao pasar o límite, alarma.",
        "Línea: tasa de error de palabras (WER) de cada noche. Banda: intervalo del 95 % del cambio frente a la línea "
        "base, medido sobre el mismo audio; cuando no toca la línea discontinua, el cambio de ese día es seguro. "
        "Debajo: prueba acumulada (CUSUM) de más errores y de menos; al pasar el límite, alarma.",
        "Line: word error rate (WER) of each night. Band: 95 % interval of the change from the baseline, measured on "
        "the same audio; where it does not touch the dashed line, that day's change is sure. Below: evidence summed "
        "over nights (CUSUM) for more errors and for fewer; past the limit it alarms.",
    ),
    "chart.wer": Text("WER, %", "WER, %", "WER, %"),
    "chart.baseline": Text("liña base", "línea base", "baseline"),
    "chart.expected": Text("esperable", "esperable", "expected"),
    "chart.rolling": Text("últimos {n} días", "últimos {n} días", "last {n} days"),
    "chart.up": Text("máis erros", "más errores", "more errors"),
    "chart.down": Text("menos erros", "menos errores", "fewer errors"),
    "chart.limit": Text("límite", "límite", "limit"),
    "chart.cusum": Text("CUSUM", "CUSUM", "CUSUM"),
    "chart.new_model": Text("modelo novo", "modelo nuevo", "new model"),
    "chart.new_baseline": Text("nova liña base", "nueva línea base", "new baseline"),
    "chart.title": Text(
        "{name}: taxa de erro de palabras noite a noite",
        "{name}: tasa de error de palabras noche a noche",
        "{name}: word error rate night by night",
    ),
    "chart.desc": Text(
        "De {first} a {last}: {n} noites medidas, entre {low} e {high}. A última, {wer}; a liña base, {baseline}. "
        "Veredicto: {verdict}.",
        "De {first} a {last}: {n} noches medidas, entre {low} y {high}. La última, {wer}; la línea base, {baseline}. "
        "Veredicto: {verdict}.",
        "{first} to {last}: {n} measured nights between {low} and {high}. The last one {wer}; baseline {baseline}. "
        "Verdict: {verdict}.",
    ),
    "bars.desc": Text("{name}: {values}.", "{name}: {values}.", "{name}: {values}."),
    "no_history": Text(
        "Aínda non hai noites medidas.", "Todavía no hay noches medidas.", "No night has been measured yet."
    ),
    "legend": Text("Signos", "Signos", "Signs"),
    # --- table of sets
    "sets": Text("Conxuntos fixos", "Conjuntos fijos", "Fixed sets"),
    "set": Text("Conxunto", "Conjunto", "Set"),
    "verdict": Text("Veredicto", "Veredicto", "Verdict"),
    "utterances": Text("Enunciados", "Enunciados", "Utterances"),
    "words": Text("Palabras", "Palabras", "Words"),
    "wer": Text("WER", "WER", "WER"),
    "cer": Text("CER", "CER", "CER"),
    "wer_tonight": Text("WER esta noite", "WER esta noche", "WER tonight"),
    "last_night": Text("Noite anterior", "Noche anterior", "Night before"),
    "baseline": Text("Liña base", "Línea base", "Baseline"),
    "card": Text("Ficha do modelo", "Ficha del modelo", "Model card"),
    "sdi": Text("S / B / I", "S / B / I", "S / D / I"),
    "sdi.note": Text(
        "S / B / I: palabras substituídas, borradas e inseridas.",
        "S / B / I: palabras sustituidas, borradas e insertadas.",
        "S / D / I: words substituted, deleted and inserted.",
    ),
    "on_empty": Text("En baleiro", "En vacío", "On empty"),
    "on_empty.note": Text(
        "En baleiro: palabras escritas onde non se di nada; contan entre as inseridas.",
        "En vacío: palabras escritas donde no se dice nada; cuentan entre las insertadas.",
        "On empty: words written where nothing is said; they count among the inserted.",
    ),
    "second_wer": Text("WER galega", "WER gallega", "Galician WER"),
    "second_wer.note": Text(
        "WER galega: co segundo normalizador, que conta como iguais as cifras, abreviaturas e contraccións escritas "
        "doutro xeito.",
        "WER gallega: con el segundo normalizador, que cuenta como iguales las cifras, abreviaturas y contracciones "
        "escritas de otro modo.",
        "Galician WER: with the second normaliser, which counts numbers, abbreviations and contractions written "
        "otherwise as the same.",
    ),
    "combined": Text("En conxunto", "En conjunto", "Combined"),
    "failed_utterances.one": Text("un sen predición", "uno sin predicción", "one without a prediction"),
    "failed_utterances.other": Text("{n} sen predición", "{n} sin predicción", "{n} without a prediction"),
    "difference": Text("Cambio", "Cambio", "Change"),
    "baseline_of": Text(
        "{set}: medida a noite do {date}; aceptouna {by}: {reason}",
        "{set}: medida la noche del {date}; la aceptó {by}: {reason}",
        "{set}: measured in the night of {date}; accepted by {by}: {reason}",
    ),
    "baseline_of.manual": Text(
        "{set}: aceptouna {by} o {date}: {reason}",
        "{set}: la aceptó {by} el {date}: {reason}",
        "{set}: accepted by {by} on {date}: {reason}",
    ),
    "baselines": Text(
        "De onde vén cada liña base", "De dónde viene cada línea base", "Where each baseline comes from"
    ),
    # --- drift
    "drift": Text("Deriva na produción", "Deriva en la producción", "Drift in production"),
    "drift.note": Text(
        "Segmentos que corrixiu unha persoa, comparados co que a xanela de referencia deixa esperar de material "
        "semellante.",
        "Segmentos que ha corregido una persona, comparados con lo que la ventana de referencia deja esperar de "
        "material semejante.",
        "Segments that a person corrected, compared with what the reference window lets expect of similar material.",
    ),
    "drift.window": Text("Últimos {n} días", "Últimos {n} días", "Last {n} days"),
    "drift.reference": Text(
        "Xanela de referencia: correccións do {since} ao {until}.",
        "Ventana de referencia: correcciones del {since} al {until}.",
        "Reference window: corrections from {since} to {until}.",
    ),
    "part": Text("Parte", "Parte", "Part"),
    "part.all": Text("Todo", "Todo", "All"),
    "part.drawn": Text("Escollidos ao chou", "Elegidos al azar", "Drawn at random"),
    "part.broadcaster": Text("emisora", "emisora", "broadcaster"),
    "part.programme_kind": Text("tipo de programa", "tipo de programa", "kind of programme"),
    "part.programme": Text("programa", "programa", "programme"),
    "expected": Text("Esperable", "Esperable", "Expected"),
    "standouts": Text("O que máis destaca", "Lo que más destaca", "What stands out"),
    # --- where the errors are
    "errors": Text("Onde están os erros", "Dónde están los errores", "Where the errors are"),
    "errors.total": Text(
        "{errors} erros en {words} palabras de {utterances} enunciados, de todos os conxuntos.",
        "{errors} errores en {words} palabras de {utterances} enunciados, de todos los conjuntos.",
        "{errors} errors in {words} words of {utterances} utterances, of all sets.",
    ),
    "by_programme": Text("Por programa", "Por programa", "By programme"),
    "programme": Text("Programa", "Programa", "Programme"),
    "no_programme": Text("programa descoñecido", "programa desconocido", "programme not known"),
    "by_kind": Text("Por tipo de programa", "Por tipo de programa", "By kind of programme"),
    "kind": Text("Tipo", "Tipo", "Kind"),
    "no_kind": Text("tipo descoñecido", "tipo desconocido", "kind not known"),
    "by_length": Text("Pola duración", "Por la duración", "By length"),
    "length_s": Text("segundos de audio", "segundos de audio", "seconds of audio"),
    "by_confidence": Text("Pola confianza", "Por la confianza", "By confidence"),
    "confidence_pct": Text("confianza do modelo, %", "confianza del modelo, %", "the model's confidence, %"),
    "bars.note": Text(
        "Barra: WER. Raia: intervalo do 95 %. Debaixo, cantos enunciados son.",
        "Barra: WER. Raya: intervalo del 95 %. Debajo, cuántos enunciados son.",
        "Bar: WER. Line: 95 % interval. Below, how many utterances there are.",
    ),
    "confusions": Text("Palabras máis confundidas", "Palabras más confundidas", "Most confused words"),
    "said": Text("Dise", "Se dice", "Said"),
    "written": Text("Escríbese", "Se escribe", "Written"),
    "times": Text("Veces", "Veces", "Times"),
    "times_baseline": Text("Na liña base", "En la línea base", "In the baseline"),
    "nothing": Text("(nada)", "(nada)", "(nothing)"),
    "rest.one": Text("E outro máis", "Y otro más", "One more"),
    "rest.other": Text("Outros {n}", "Otros {n}", "{n} more"),
    "stands_out": Text("destaca", "destaca", "stands out"),
    "no_errors": Text("Non hai erros.", "No hay errores.", "There are no errors."),
    # --- worst utterances
    "worst.one": Text("O enunciado con erros", "El enunciado con errores", "The utterance with errors"),
    "worst.other": Text("Os {n} peores enunciados", "Los {n} peores enunciados", "The {n} worst utterances"),
    "worst.note": Text(
        "Arriba, o que se di; debaixo, o que escribiu o modelo.",
        "Arriba, lo que se dice; debajo, lo que ha escrito el modelo.",
        "Above, what is said; below, what the model wrote.",
    ),
    "piece.substitute": Text("substituída", "sustituida", "substituted"),
    "piece.delete": Text("borrada", "borrada", "deleted"),
    "piece.insert": Text("inserida", "insertada", "inserted"),
    "read.substitute": Text(
        "[«{reference}» pasou a «{hypothesis}»]",
        "[«{reference}» pasó a «{hypothesis}»]",
        "[“{reference}” became “{hypothesis}”]",
    ),
    "read.delete": Text("[falta «{reference}»]", "[falta «{reference}»]", "[“{reference}” is missing]"),
    "read.insert": Text("[sobra «{hypothesis}»]", "[sobra «{hypothesis}»]", "[“{hypothesis}” was added]"),
    "n_errors.one": Text("un erro", "un error", "one error"),
    "n_errors.other": Text("{n} erros", "{n} errores", "{n} errors"),
    "n_words.one": Text("unha palabra", "una palabra", "one word"),
    "n_words.other": Text("{n} palabras", "{n} palabras", "{n} words"),
    "errors_in": Text("{errors} en {words}", "{errors} en {words}", "{errors} in {words}"),
    "baseline_errors": Text("na liña base, {n}", "en la línea base, {n}", "baseline {n}"),
    "confidence": Text("confianza {value}", "confianza {value}", "confidence {value}"),
    "as_written": Text("Tal como está escrito", "Tal como está escrito", "As it was written"),
    "reference": Text("Referencia", "Referencia", "Reference"),
    "hypothesis": Text("Modelo", "Modelo", "Model"),
    "seconds": Text("{n} s", "{n} s", "{n} s"),
    "listen": Text("Escoitar {key}", "Escuchar {key}", "Listen to {key}"),
    "clip_cut": Text(
        "só os primeiros {n} segundos", "solo los primeros {n} segundos", "only the first {n} seconds"
    ),
    "clip_failed": Text(
        "O audio non se pode escoitar", "El audio no se puede escuchar", "The audio cannot be heard"
    ),
    "flag.token_limit": Text("texto demasiado longo", "texto demasiado largo", "token limit"),
    "flag.loop": Text("repetición", "repetición", "loop"),
    "flag.low_confidence": Text("pouca confianza", "poca confianza", "low confidence"),
    "flag.too_fast": Text("demasiado rápido", "demasiado rápido", "too fast"),
    "flag.no_speech": Text("sen voz", "sin voz", "no speech"),
    "flag.resplit": Text("partido en dous", "partido en dos", "split in two"),
    # --- without references
    "unreferenced": Text("Medidas sen referencias", "Medidas sin referencias", "Measures without references"),
    "unreferenced.note": Text(
        "Medidas de emisoras, programas e décadas, cada unha comparada co seu propio historial, con corrección por "
        "seren moitas (esta noite, {compared}). Por si soas non din se hai máis erros.",
        "Medidas de emisoras, programas y décadas, cada una comparada con su propio historial, con corrección por "
        "ser muchas (esta noche, {compared}). Por sí solas no dicen si hay más errores.",
        "Measures of broadcasters, programmes and decades, each compared with its own history, corrected for being "
        "many (tonight {compared}). By themselves they do not say whether there are more errors.",
    ),
    "findings.one": Text("unha medida destaca", "una medida destaca", "one measure stands out"),
    "findings.other": Text("{n} medidas destacan", "{n} medidas destacan", "{n} measures stand out"),
    "unit": Text("De que", "De qué", "Of what"),
    "unit.broadcaster": Text("emisora", "emisora", "broadcaster"),
    "unit.programme": Text("programa", "programa", "programme"),
    "unit.decade": Text("década", "década", "decade"),
    "measure": Text("Medida", "Medida", "Measure"),
    "measure.mean_logprob": Text(
        "probabilidade logarítmica media", "probabilidad logarítmica media", "mean log-probability"
    ),
    "measure.words_per_s": Text("palabras por segundo", "palabras por segundo", "words a second"),
    "measure.loop_rate": Text(
        "segmentos con repeticións", "segmentos con repeticiones", "segments with loops"
    ),
    "measure.empty_rate": Text("segmentos baleiros", "segmentos vacíos", "empty segments"),
    "measure.speech_share": Text("parte do tempo con voz", "parte del tiempo con voz", "share of speech"),
    "value_tonight": Text("Esta noite", "Esta noche", "Tonight"),
    "usual": Text("O habitual", "Lo habitual", "Usual"),
    "segments": Text("Segmentos", "Segmentos", "Segments"),
    "nights_compared": Text("Noites comparadas", "Noches comparadas", "Nights compared"),
    # --- production
    "production": Text("Produción", "Producción", "Production"),
    "production.window": Text(
        "Do {since} ao {until}.", "Del {since} al {until}.", "From {since} to {until}."
    ),
    "broadcaster": Text("Emisora", "Emisora", "Broadcaster"),
    "all_broadcasters": Text("Todas", "Todas", "All"),
    "production.recordings": Text("Gravacións rematadas", "Grabaciones terminadas", "Recordings finished"),
    "production.audio": Text("Audio", "Audio", "Audio"),
    "production.transcribed": Text("Transcrito", "Transcrito", "Transcribed"),
    "production.no_speech": Text("Sen voz", "Sin voz", "No speech"),
    "production.failed": Text("Sen poder transcribir", "Sin poder transcribir", "Failed"),
    "production.failed_recordings": Text("Gravacións fallidas", "Grabaciones fallidas", "Recordings failed"),
    "production.waiting": Text("En espera", "En espera", "Waiting"),
    "n_recordings.one": Text("unha gravación", "una grabación", "one recording"),
    "n_recordings.other": Text("{n} gravacións", "{n} grabaciones", "{n} recordings"),
    "production.rtfx": Text("RTFx", "RTFx", "RTFx"),
    "production.rtfx.note": Text(
        "segundos de audio por segundo de cada traballador",
        "segundos de audio por segundo de cada trabajador",
        "seconds of audio a second of one worker",
    ),
    "production.coverage": Text("Cobertura", "Cobertura", "Coverage"),
    "production.coverage.note": Text(
        "parte do audio que ten texto ou non ten voz",
        "parte del audio que tiene texto o no tiene voz",
        "share of the audio that has text or no speech",
    ),
    "production.unknown": Text(
        "Non se coñecen as cifras de produción desta noite.",
        "No se conocen las cifras de producción de esta noche.",
        "The figures of production are not known for this night.",
    ),
    "hours": Text("{n} h", "{n} h", "{n} h"),
    # --- the rest
    "not_measured": Text("O que quedou sen medir", "Lo que ha quedado sin medir", "What was not measured"),
    "made_by": Text("De que veñen estas cifras", "De dónde vienen estas cifras", "What made it"),
    "model": Text("Modelo", "Modelo", "Model"),
    "weights": Text("Pesos (SHA-256)", "Pesos (SHA-256)", "Weights (SHA-256)"),
    "prompt": Text("Instrución", "Instrucción", "Prompt"),
    "decoding": Text("Descodificación", "Decodificación", "Decoding"),
    "device": Text("Dispositivo", "Dispositivo", "Device"),
    "code": Text("Versión do código", "Versión del código", "Code version"),
    "report_code": Text("Informe feito con", "Informe hecho con", "Report made with"),
    "normalizers": Text("Normalizadores", "Normalizadores", "Normalisers"),
    "sets_of": Text("Conxuntos", "Conjuntos", "Sets"),
    # --- mail and terminal
    "mail.page": Text(
        "A páxina completa, con gráficas e audio:",
        "La página completa, con gráficas y audio:",
        "The whole page, with charts and audio:",
    ),
    "mail.command": Text("ou na consola:", "o en la consola:", "or in the console:"),
    "mail.sets": Text("Conxuntos fixos (WER, %)", "Conjuntos fijos (WER, %)", "Fixed sets (WER, %)"),
    "mail.tonight": Text("noite", "noche", "night"),
    "mail.before": Text("anterior", "anterior", "before"),
    "mail.baseline": Text("l. base", "l. base", "baseline"),
    "mail.card": Text("ficha", "ficha", "card"),
    "mail.change": Text("cambio", "cambio", "change"),
}


def look_up(language: Language, key: str) -> str:
    """The text with its fields in braces.

    Raises:
        KeyError: no such key.
    """
    text: str = getattr(TEXTS[key], language.value)
    return text.replace(" %", NO_BREAK + "%")
