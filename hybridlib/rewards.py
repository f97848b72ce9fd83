"""What is a completion paid for? One decorated function per reward, in the form that TRL calls.

`fn(completions, **columns) -> list[float]`, one number per completion, from `low` to `high` for
whatever a model may write. A completion is a string or a conversation; columns of the rows (answer,
kind, and gold, the worked solution) come as lists, beside what TRL adds (prompts, completion_ids).
`needs` names what `bound` has to supply. Rewards that ask whether a completion is right share one
grading of the batch. Every docstring says what the reward can be hacked by: what raises the pay
without the thing that is meant. Add the others to `correct` with weights that cannot outbid it.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from hybridlib import StudyError, grading, metrics
from hybridlib.engine import critics
from hybridlib.grading import arithmetic as equations
from hybridlib.registry import Registry

REWARDS = Registry("reward", "low", "high")
Rows = list[Any]
BETA = 0.05  # of the implicit reward, as in PRIME
LIMIT = 512  # tokens that an answer may have, where no run says another number
FAILURES = ("timeout", "error", "refused")  # verdicts without a comparison
TAGGED = re.compile(
    r"\s*<think>((?:(?!</?(?:think|answer)>).)*)</think>"
    r"\s*<answer>((?:(?!</?(?:think|answer)>).)*)</answer>\s*",
    re.DOTALL,
)


@REWARDS.register(low=0, high=1)
def correct(completions: Rows, answer: list[str], kind: list[str], **given: Any) -> list[float]:
    """Is it right? 0 or 1: the verifiable reward of DeepSeek-R1 (DeepSeek-AI 2025).

    Hacked by what the grader takes for right, as programs that know the shown tests by heart.
    """
    return [float(verdict.correct) for verdict in _verdicts(completions, answer, kind, **given)]


@REWARDS.register(low=0, high=1)
def format(completions: Rows, kind: list[str], **_: Any) -> list[float]:
    """Has it the form that its kind asks for, right or wrong? 0 or 1 (DeepSeek-AI 2025).

    All or nothing: a part of the pay for a part of the form could be collected without an answer.
    Hacked by any answer in that form, so it has to weigh less than a right answer.
    """
    pairs = zip(texts(completions), kind, strict=True)
    return [float(grading.well_formed(text, k)) for text, k in pairs]


@REWARDS.register(low=0, high=1)
def structured(completions: Rows, **_: Any) -> list[float]:
    """Is the whole of it `<think>..</think><answer>..</answer>`, or JSON with the same two keys?

    0 or 1, both parts not empty, nothing around them: a reward for structure as in RL-Struct
    (arXiv:2512.00319), all or nothing. The tagged form can be right for the grader, too. Hacked by
    any words in that structure.
    """
    return [float(_structure(text)) for text in texts(completions)]


@REWARDS.register(low=0, high=1)
def arithmetic(completions: Rows, kind: list[str], **_: Any) -> list[float]:
    """Which share of its visible steps holds? 0 to 1, 0 without a step.

    Steps are the calculator marks `<<lhs=rhs>>` of GSM8K (Cobbe et al. 2021), else what
    `equations` reads in the text; a mark that cannot be read does not hold. Hacked by many true
    and useless sums: validity of arithmetic is not progress.
    """
    return [_share(steps(text, k)) for text, k in zip(texts(completions), kind, strict=True)]


@REWARDS.register(low=0, high=1)
def recall(completions: Rows, gold: list[str], **_: Any) -> list[float]:
    """Which share of the gold solution's intermediate values does it compute? 0 to 1.

    `metrics.intermediate_recall`, after the marks of Cobbe et al. (2021); 0 where gold marks none.
    Hacked by listing sums until one has the value, and blind to another valid route.
    """
    return [score or 0.0 for score in metrics.intermediate_recall(texts(completions), gold)]


@REWARDS.register(low=0, high=1, needs=("limit",))
def brevity(
    completions: Rows, answer: list[str], kind: list[str], completion_ids: Rows | None = None,
    limit: int = LIMIT, **given: Any,
) -> list[float]:  # fmt: skip
    """How short is a right answer? 1 - tokens / limit, so 1 to 0; 0 for a wrong answer.

    Only right answers are paid for being short, as in Arora & Zanette (2025): otherwise the
    shortest guess would be best. Hacked by leaving out the steps that harder questions need.
    """
    verdicts = _verdicts(completions, answer, kind, **given)
    return [
        max(0.0, 1 - len(ids) / limit) if verdict.correct else 0.0
        for ids, verdict in zip(_tokens(completions, completion_ids), verdicts, strict=True)
    ]


@REWARDS.register(low=-1, high=1, needs=("limit",))
def cosine(
    completions: Rows, answer: list[str], kind: list[str], completion_ids: Rows | None = None,
    limit: int = LIMIT, **given: Any,
) -> list[float]:  # fmt: skip
    """Right, and how short; or wrong, and how long? Half a cosine over tokens / limit.

    From 1 down to 0.5 for right answers, from -1 up to -0.5 for wrong ones: the cosine reward of
    Yeo et al. (2025), with TRL's values. Hacked by padding: whoever cannot find the answer earns
    more by writing up to the limit (so pay `repetition` beside it, as they do).
    """
    verdicts = _verdicts(completions, answer, kind, **given)
    pairs = zip(_tokens(completions, completion_ids), verdicts, strict=True)
    sizes = [(min(len(ids) / limit, 1.0), verdict.correct) for ids, verdict in pairs]
    return [(0.75 + 0.25 * math.cos(math.pi * x)) * (1 if right else -1) for x, right in sizes]


@REWARDS.register(low=-1, high=0)
def repetition(completions: Rows, completion_ids: Rows | None = None, **_: Any) -> list[float]:
    """How much does it repeat itself? -#(repeated token trigrams) / #(trigrams), -1 to 0.

    The penalty of Yeo et al. (2025, appendix C.2). Hacked by saying nothing: an answer of two
    tokens repeats none. Code and tables repeat by nature, so keep the weight small.
    """
    grams = [[*zip(t, t[1:], t[2:], strict=False)] for t in _tokens(completions, completion_ids)]
    return [len({*row}) / len(row) - 1 if row else 0.0 for row in grams]


@REWARDS.register(low=0, high=1)
def random(completions: Rows, **_: Any) -> list[float]:
    """What does a reward without information do? 0 or 1 at even odds (Shao et al. 2025).

    The coin is a hash of the text, so that a run can be repeated; equal texts get equal pay. Hacked
    by saying again and again what once won.
    """
    coins = [hashlib.sha256(text.encode(errors="replace")) for text in texts(completions)]
    return [float(coin.digest()[0] % 2) for coin in coins]


@REWARDS.register(low=-1, high=1, needs=("log_ratio",))
def implicit(
    completions: Rows, prompts: Rows, completion_ids: Rows, log_ratio: Callable, **_: Any
) -> list[float]:
    """How much likelier has the adapter made it? beta (log p_on - log p_off), cut off at -1 and 1.

    The implicit reward of a tuned model (Rafailov et al. 2023; Cui et al. 2025, PRIME), here the
    adapter that the run starts from, as in arXiv:2510.21090: a model paid by its own
    moving ratio would run away from its base for nothing. Needs no answer. Hacked by the style of
    the adapter's training data, as wrong answers in the right words.
    """
    return [min(1.0, max(-1.0, BETA * nats)) for nats in log_ratio(prompts, completion_ids)]


@REWARDS.register(low=-1, high=1, needs=("encoder",))
def semantic(
    completions: Rows, gold: list[str], encoder: Callable | None = None, **_: Any
) -> list[float]:
    """Does it mean what the gold solution means? Cosine of their sentence vectors, -1 to 1.

    A semantic reward for explanations as in arXiv:2509.13081, with all-MiniLM-L6-v2 (Reimers &
    Gurevych 2019), an optional extra. Hacked by the vocabulary of the topic: it hardly sees digits.
    """
    return (encoder or critics.encoder())(texts(completions), gold)


# ---------------------------------------------------------------- shared by the rewards


def bound(names: Sequence[str], model: Any, tokenizer: Any, limit: int) -> list[Callable]:
    """The rewards of these names as TRL calls them, with what they need beside the rows.

    Raises StudyError where that cannot be had, before anything is trained.
    """
    supply = {
        "limit": lambda: limit,
        "log_ratio": lambda: critics.LogRatio(model, tokenizer),
        "encoder": critics.encoder,
    }
    found = []
    for name in names:
        needs = getattr(REWARDS[name], "needs", ())
        known = {need: supply[need]() for need in needs}
        found.append(partial(REWARDS[name], **known) if known else REWARDS[name])
    return found


def texts(completions: Rows) -> list[str]:
    """What did the model write? The last message's content, or the string itself."""
    return [c if isinstance(c, str) else c[-1]["content"] for c in completions]


def steps(text: str, kind: str) -> list[bool]:
    """Which of the visible steps of this text hold? Those of a program are not visible.

    >>> steps("<<12+7=19>>19 then <<19*2=36>>36", "number")
    [True, False]
    """
    if kind == "program":
        return []
    found = equations.find_equations(text)
    if marks := equations.CALCULATOR_MARK.findall(text):
        held = [e.holds for e in found if e.marked]
        return held + [False] * (len(marks) - len(held))
    simplifications = equations.check_simplifications(text) if kind == "expression" else []
    return [e.holds for e in found] + simplifications


def _share(held: list[bool]) -> float:
    return sum(held) / len(held) if held else 0.0


def _tokens(completions: Rows, completion_ids: Rows | None) -> list[Sequence]:
    """The token ids that TRL hands over, else the words of the text."""
    return completion_ids or [text.split() for text in texts(completions)]


def _structure(text: str) -> bool:
    if found := TAGGED.fullmatch(text):
        return all(part.strip() for part in found.groups())
    try:
        # Pairs, as a key may come twice; NaN and Infinity, which int refuses, are no JSON.
        pairs = json.loads(text, object_pairs_hook=list, parse_constant=int)
    except (ValueError, RecursionError):
        return False
    is_object = isinstance(pairs, list) and text.lstrip()[:1] == "{"
    return (
        is_object
        and [key for key, _ in pairs] == ["think", "answer"]
        and all(isinstance(value, str | int | float) and str(value).strip() for _, value in pairs)
    )


def _verdicts(
    completions: Rows, answer: list[str], kind: list[str], log_metric: Callable | None = None,
    **_: Any,
) -> tuple[grading.Verdict, ...]:  # fmt: skip
    """The verdicts of a batch; tells TRL's log which share of it could not be compared.

    A program that runs into its time or an exception has itself to blame. Where the comparison of
    two expressions does, time and again, the grader is broken, and a 0 would teach that silently.
    """
    found = _graded(tuple(texts(completions)), tuple(answer), tuple(kind))
    for reason in FAILURES if log_metric else ():  # TRL takes the mean of what several rewards log
        log_metric(f"graded/{reason}", sum(v.reason == reason for v in found) / len(found))
    compared = [v for v, k in zip(found, kind, strict=True) if k != "program"]
    failed = [v for v in compared if v.reason in ("timeout", "error")]
    if len(failed) > max(8, len(compared) / 10):
        raise StudyError(
            f"the grader failed on {len(failed)} of {len(compared)} answers, which is not their "
            f"fault alone (the last: {failed[-1].error}); check math-verify before training on"
        )
    return found


@lru_cache(maxsize=4)
def _graded(completions: tuple, answer: tuple, kind: tuple) -> tuple[grading.Verdict, ...]:
    return tuple(grading.grade_many(list(completions), list(answer), list(kind)))
