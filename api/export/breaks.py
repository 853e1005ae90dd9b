"""Where Galician text may be broken: what it costs the reader when a line or a cue ends between two words.

Costs are on one scale, compared in `api.export.cues`: 0 is the end of a sentence, 30 tears an article from its noun.
A word is judged by its letters alone (no grammar): a, o, no, nos and se are article, contraction or pronoun, and
belong to the word behind them in every case, which is all that matters here.
"""

from __future__ import annotations

SENTENCE_END = 0.0
CLAUSE_END = 2.0
BEFORE_CONJUNCTION = 5.0
BEFORE_PREPOSITION = 7.0
ANYWHERE = 11.0
INSIDE_NAME = 18.0
AFTER_PROCLITIC = 30.0

CLOSING = "»”’\"')]"
OPENING = "«“‘\"'([¿¡—-"


def words(listed: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(listed.split())


ARTICLES_AND_DETERMINERS = words(
    "o a os as un unha uns unhas lo la los las este esta estes estas ese esa eses esas aquel aquela aqueles "
    "aquelas meu miña meus miñas teu túa teus túas seu súa seus súas noso nosa nosos nosas voso vosa vosos vosas "
    "cada todo toda todos todas outro outra outros outras algún algunha algúns algunhas ningún ningunha moito "
    "moita moitos moitas pouco pouca poucos poucas varios varias ambos ambas cal cales canto canta cantos cantas "
    "don dona san santa señor señora"
)
NUMBERS = words(
    "dous dúas tres catro cinco seis sete oito nove dez once doce trece catorce quince dezaseis dezasete dezaoito "
    "dezanove vinte trinta corenta cincuenta sesenta setenta oitenta noventa cen cento mil primeiro primeira "
    "segundo segunda terceiro terceira"
)
PREPOSITIONS = words(
    "a ao aos á ás ante até ata baixo con contra de do da dos das dun dunha duns dunhas deste desta destes destas "
    "dese desa deses desas daquel daquela desde dende en no na nos nas nun nunha nuns nunhas neste nesta nestes "
    "nestas nese nesa neses nesas naquel naquela entre excepto fronte para polo pola polos polas por segundo sen "
    "sobre tras cara mediante durante"
)
CONJUNCTIONS = words(
    "e ou nin pero mais senón que porque pois cando mentres como onde aínda se conque quen cuxo cuxa cuxos cuxas "
    "porén"
)
BOUND_TO_THE_NEXT = words(
    "me te se lle lles nos vos che non moi máis menos tan tanto case só xa nunca sempre ten é foi son era eran "
    "está están ser estar vai van ía hai había foron quere pode poden podía debe deben ha han será serán tiña"
)
ABBREVIATED = words("sr sra srta dr dra d dna sta sto av núm nº pax vol cap art")
PROCLITICS = ARTICLES_AND_DETERMINERS | PREPOSITIONS | CONJUNCTIONS
WEAK_BOND = 16.0
"""Behind a verb or adverb that the next word completes: worse than between any two words, better than an article."""


def bare(word: str) -> str:
    """A word's letters, small, without what stands around it."""
    return word.strip(OPENING + CLOSING + ".,;:!?…").lower()


def break_cost(word: str, following: str, third: str = "") -> float:
    """What it costs to end a line or cue between `word` and `following`; `third` comes behind them."""
    closed = word.rstrip(CLOSING)
    if closed.endswith(("!", "?", "…")) or (closed.endswith(".") and not _is_abbreviation(closed)):
        return SENTENCE_END
    if closed.endswith((",", ";", ":")) or word.endswith((")", "]", "»", "”", "—", "–")):
        return CLAUSE_END
    last, first = bare(word), bare(following)
    if last in NUMBERS or last.isdecimal():
        if first == "e":  # "trinta e tres", but "son as nove e isto é"
            return AFTER_PROCLITIC if bare(third) in NUMBERS else BEFORE_CONJUNCTION
        return BEFORE_PREPOSITION if first in PREPOSITIONS else AFTER_PROCLITIC
    if last in PROCLITICS or _is_abbreviation(closed):
        return AFTER_PROCLITIC
    if last in BOUND_TO_THE_NEXT:
        return WEAK_BOND
    if following[:1] in "(«“¿¡—–":
        return CLAUSE_END
    if first in CONJUNCTIONS:
        return BEFORE_CONJUNCTION
    if first in PREPOSITIONS:
        return BEFORE_PREPOSITION
    if word[:1].isupper() and following[:1].isupper():
        return INSIDE_NAME
    return ANYWHERE


def _is_abbreviation(word: str) -> bool:
    """`Sr.`, `núm.`, and a single capital: `J.`"""
    letters = word.strip(OPENING)[:-1]
    return word.endswith(".") and (
        letters.lower() in ABBREVIATED or (len(letters) == 1 and letters.isupper())
    )
