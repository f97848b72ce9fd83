r"""Which answer does a sentence state? `The total cost is \$5.` states \$5, in several languages.

Only a sentence that ends in its answer, and says nothing that could turn it round: no `not`, no
`less than`, no `or`.
"""

import re

from hybridlib.grading import forms, notation

LONGEST_FRAME = 120  # characters before the answer
VERBS = (
    "is|are|was|were|equals?|costs?|has|have|had|gets?|needs?|pays?|earns?|takes?|makes?|becomes?|"
    "es|son|vale|ist|sind|beträgt|lautet|est|sont|vaut|è|sono|é|são|wynosi|равно|равен|равна|составляет"
)
STATEMENT = re.compile(
    rf"(?P<frame>[^\W\d_][^\d\\^_{{}}+*/|<>=]{{1,{LONGEST_FRAME}}})"
    rf"(?:(?<=\s)(?P<verb>{VERBS})(?: d[ei])?(?=[\s:])|[:=])\s*:?\s*(?P<answer>[^\s:=].*)",
    re.IGNORECASE,
)
EAST_ASIAN = re.compile(
    r"(?:最终|最終|所以|因此|故)?(?:的)?(?:答案|答え|答|解|정답|답)(?:应该|應該)?(?:是|为|為|は|은|:|\s)*"
    r"(?P<answer>[-\\$(\d].{0,80}?)(?:です|입니다|이다)?"
)
AROUND = re.compile(r"\\(?:[,;:! ()]|q?quad(?![a-zA-Z]))|[$~\"`*]")  # spaces, formulas, bold type
WORD = re.compile(r"[^\W\d_]{2}")


def answer_in_sentence(text: str) -> str | None:
    """Return the answer that a sentence ends in, None for what is no such sentence."""
    sentence = forms.GROUP.sub(r" \1 ", notation.plain(text))
    sentence = " ".join(AROUND.sub(" ", sentence).split()).strip(" .,;:!?")
    match = EAST_ASIAN.fullmatch(sentence) or STATEMENT.fullmatch(sentence)
    if match is None or notation.TURNED_ROUND.search(sentence):
        return None
    if match.re is STATEMENT:
        if not match["verb"] and not WORD.search(match["frame"]):
            return None  # x = 5 or A: 5
        if notation.TURNED_ROUND.search(match["frame"]):
            return None
    answer = match["answer"].rstrip(" .")
    return answer if answer and answer != text else None
