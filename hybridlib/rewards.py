"""What is a completion rewarded for? One decorated function per reward, in the form that TRL calls.

`fn(completions, **columns) -> list[float]`, one number per completion, from `low` to `high` for
whatever a model may write. A completion is a string or a conversation; columns of the rows (answer,
kind, asked, and gold, the worked solution) come as lists, beside what TRL adds (prompts and
completion_ids). `needs` names what `bind` has to supply. Rewards that depend on whether a
completion is right share one grading of the batch. Every docstring says what the reward can be
hacked by: what raises the reward without the thing that is meant. Add the others to `correct` with
weights that cannot outbid it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from numbers import Real
from types import SimpleNamespace
from typing import Any

from hybridlib import StudyError, grading, metrics
from hybridlib.engine import critics
from hybridlib.grading import arithmetic
from hybridlib.registry import Registry

REWARDS = Registry("reward", "low", "high", optional=("needs",))
Column = list[Any]  # one entry per completion
BETA = 0.05  # of the implicit reward, as in PRIME
DEFAULT_LIMIT = 512  # tokens that an answer may have, where no run says another number
FAILURES = ("timeout", "error", "refused")  # verdicts without a comparison
TAGGED = re.compile(
    r"\s*<think>((?:(?!</?(?:think|answer)>).)*)</think>"
    r"\s*<answer>((?:(?!</?(?:think|answer)>).)*)</answer>\s*",
    re.DOTALL,
)


@REWARDS.register(low=0, high=1)
def correct(completions: Column, answer: list[str], kind: list[str], **given: Any) -> list[float]:
    """Correctness: 1 for an answer that the grader accepts, else 0.

    The verifiable reward of DeepSeek-R1 (DeepSeek-AI 2025). Hacked by what the grader takes for
    right, as programs that know the shown tests by heart.
    """
    return [float(verdict.correct) for verdict in _verdicts(completions, answer, kind, **given)]


@REWARDS.register(low=0, high=1, name="format")
def well_formed_answer(completions: Column, kind: list[str], **_: Any) -> list[float]:
    """Form: 1 for an answer in the form that its kind has, right or wrong, else 0.

    The format reward of DeepSeek-R1 (DeepSeek-AI 2025), all or nothing: a part of the pay for a
    part of the form could be collected without an answer. Hacked by any answer in that form, so it
    has to weigh less than a right answer.
    """
    pairs = zip(texts(completions), kind, strict=True)
    return [float(grading.well_formed(text, kind_of_text)) for text, kind_of_text in pairs]


@REWARDS.register(low=0, high=1)
def structured(completions: Column, **_: Any) -> list[float]:
    """Structure: 1 for `<think>..</think><answer>..</answer>`, or JSON with these two keys, else 0.

    Both parts not empty, nothing around them: a reward for structure as in RL-Struct
    (arXiv:2512.00319), all or nothing. The tagged form can be right for the grader, too. Hacked by
    any words in that structure.
    """
    return [float(_is_tagged(text) or _is_json(text)) for text in texts(completions)]


@REWARDS.register(low=0, high=1, name="arithmetic")
def valid_steps(completions: Column, kind: list[str], **_: Any) -> list[float]:
    """Share of its visible steps that hold, 0 to 1; 0 without a step.

    Steps are the calculator marks `<<lhs=rhs>>` of GSM8K (Cobbe et al. 2021), else the equations
    that `grading.arithmetic` reads in the text; a mark that cannot be read does not hold. Hacked by
    many true and useless sums: validity of arithmetic is not progress.
    """
    pairs = zip(texts(completions), kind, strict=True)
    return [_share(steps_hold(text, kind_of_text)) for text, kind_of_text in pairs]


@REWARDS.register(low=0, high=1)
def recall(completions: Column, gold: list[str], **_: Any) -> list[float]:
    """Share of the gold solution's intermediate values that it computes, 0 to 1.

    `metrics.intermediate_recall`, after the marks of Cobbe et al. (2021); 0 where gold marks none.
    Hacked by listing sums until one has the value, and blind to another valid route.
    """
    return [score or 0.0 for score in metrics.intermediate_recall(texts(completions), gold)]


@REWARDS.register(low=0, high=1, needs=("limit",))
def brevity(
    completions: Column,
    answer: list[str],
    kind: list[str],
    completion_ids: Column | None = None,
    limit: int = DEFAULT_LIMIT,
    **given: Any,
) -> list[float]:
    """Shortness of a right answer, 1 - tokens / limit, so 1 to 0; 0 for a wrong answer.

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
    completions: Column,
    answer: list[str],
    kind: list[str],
    completion_ids: Column | None = None,
    limit: int = DEFAULT_LIMIT,
    **given: Any,
) -> list[float]:
    """Half a cosine over tokens / limit: best is right and short, worst wrong and short.

    From 1 down to 0.5 for right answers, from -1 up to -0.5 for wrong ones: the cosine reward of
    Yeo et al. (2025), with TRL's values. Hacked by padding: whoever cannot find the answer earns
    more by writing up to the limit (so add `repetition`, as they do).
    """
    verdicts = _verdicts(completions, answer, kind, **given)
    scores = []
    for ids, verdict in zip(_tokens(completions, completion_ids), verdicts, strict=True):
        size = 0.75 + 0.25 * math.cos(math.pi * min(len(ids) / limit, 1.0))
        scores.append(size if verdict.correct else -size)
    return scores


@REWARDS.register(low=-1, high=0)
def repetition(completions: Column, completion_ids: Column | None = None, **_: Any) -> list[float]:
    """Minus the share of its token trigrams that repeat another one, -1 to 0.

    The penalty of Yeo et al. (2025, appendix C.2). Hacked by saying nothing: an answer of two
    tokens repeats none. Code and tables repeat by nature, so keep the weight small.
    """
    scores = []
    for tokens in _tokens(completions, completion_ids):
        trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        scores.append(len(set(trigrams)) / len(trigrams) - 1 if trigrams else 0.0)
    return scores


@REWARDS.register(low=0, high=1, name="random")
def coin(completions: Column, **_: Any) -> list[float]:
    """A coin without information: 0 or 1 at even odds (Shao et al. 2025).

    It is a hash of the text, so that a run can be repeated; equal texts get equal rewards.
    Hacked by repeating a text that was once rewarded.
    """
    hashes = [hashlib.sha256(text.encode(errors="replace")) for text in texts(completions)]
    return [float(digest.digest()[0] % 2) for digest in hashes]


@REWARDS.register(low=-1, high=1, needs=("log_ratio",))
def implicit(
    completions: Column, prompts: Column, completion_ids: Column, log_ratio: Callable, **_: Any
) -> list[float]:
    """How much likelier the adapter makes it: beta (log p_on - log p_off), cut off at -1 and 1.

    The implicit reward of a tuned model (Rafailov et al. 2023; Cui et al. 2025, PRIME), here the
    adapter that the run starts from, as in arXiv:2510.21090: a model paid by its own
    moving ratio would run away from its base for nothing. Needs no answer. Hacked by the style of
    the adapter's training data, as wrong answers in the right words.
    """
    return [min(1.0, max(-1.0, BETA * nats)) for nats in log_ratio(prompts, completion_ids)]


@REWARDS.register(low=-1, high=1, needs=("encoder",))
def semantic(
    completions: Column, gold: list[str], encoder: Callable | None = None, **_: Any
) -> list[float]:
    """Closeness to the gold solution's meaning: cosine of their sentence vectors, -1 to 1.

    A semantic reward for explanations as in arXiv:2509.13081, with all-MiniLM-L6-v2 (Reimers &
    Gurevych 2019), an optional extra. Hacked by the vocabulary of the topic: it hardly sees digits.
    """
    return (encoder or critics.encoder())(texts(completions), gold)


# ---------------------------------------------------------------- shared by the rewards


def bind(names: Sequence[str], model: Any, tokenizer: Any, limit: int) -> list[Callable]:
    """Return the rewards of these names as TRL calls them, with what they need beside the rows.

    Args:
        model, tokenizer: The policy before training.
        limit: Tokens that an answer may have.
    Raises:
        StudyError: What a reward needs cannot be had; before anything is trained.
    """
    supply = {
        "limit": lambda: limit,
        "log_ratio": lambda: critics.LogRatio(model, tokenizer),
        "encoder": critics.encoder,
    }
    functions = []
    for name in names:
        needs = getattr(REWARDS[name], "needs", ())
        if unknown := [need for need in needs if need not in supply]:
            raise StudyError(
                f"the reward {name!r} needs {unknown[0]!r}, which nothing supplies; "
                f"valid: {', '.join(supply)}"
            )
        supplied = {need: supply[need]() for need in needs}
        functions.append(_checked(REWARDS[name], supplied))
    return functions


def probe(names: Sequence[str], rows: Sequence[dict[str, Any]], limit: int) -> None:
    """Try rewards that ask no model on the solutions of some rows, and on empty completions.

    Args:
        rows: as `data.load` has them.
        limit: Tokens that an answer may have.
    Raises:
        StudyError: Names the reward that fails, that returns something else than a number or None
            for each completion, or that applies to none of them.
    """
    tried = [(row, text) for row in rows for text in (row["completion"][-1]["content"], "")]
    columns: dict[str, Column] = {
        name: [row[name] for row, _ in tried]
        for name in rows[0]
        if name not in ("prompt", "completion")
    }
    columns["gold"] = [row["completion"][-1]["content"] for row, _ in tried]
    given = columns | {
        "prompts": [row["prompt"] for row, _ in tried],
        "completions": [[{"role": "assistant", "content": text}] for _, text in tried],
        "completion_ids": [list(text.encode()) for _, text in tried],
        "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0),
        "log_metric": lambda *_: None,
        "log_extra": lambda *_: None,
    }
    for function in bind(names, None, None, limit):
        try:
            values = function(**given)
        except StudyError:
            raise
        except Exception as error:  # whatever a reward of the user's own may do
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise StudyError(f"the reward {function.__name__!r} fails: {reason}") from None
        if all(value is None for value in values):
            kinds = ", ".join(sorted(set(columns["kind"])))
            raise StudyError(
                f"the reward {function.__name__!r} returns None for every row tried ({kinds}); "
                "return a number for those that it applies to"
            )


def _checked(reward: Callable, supplied: dict[str, Any]) -> Callable:
    """Return a reward with what is supplied to it, whose values are checked whenever it is called.

    None means, as in TRL, that the reward does not apply to that completion.
    """

    @wraps(reward)
    def function(completions: Column, **given: Any) -> list[float | None]:
        values = reward(completions=completions, **given, **supplied)
        wanted = f"a number for each of {len(completions)} completions"
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, list | tuple):
            kind = type(values).__name__
            raise StudyError(f"the reward {reward.__name__!r} returns {kind}; it owes {wanted}")
        if len(values) != len(completions):
            raise StudyError(
                f"the reward {reward.__name__!r} returns {len(values)} values; it owes {wanted}"
            )
        for value in values:
            if not (value is None or (isinstance(value, Real) and math.isfinite(value))):
                raise StudyError(
                    f"the reward {reward.__name__!r} returns {value!r}, which is no finite number; "
                    "return None where it does not apply"
                )
        return list(values)

    return function


def texts(completions: Column) -> list[str]:
    """Return what the model wrote: the last message's content, or the string itself."""
    return [c if isinstance(c, str) else c[-1]["content"] for c in completions]


def steps_hold(text: str, kind: str) -> list[bool]:
    """Return for each visible step of this text whether it holds; a program shows none.

    >>> steps_hold("<<12+7=19>>19 then <<19*2=36>>36", "number")
    [True, False]
    """
    if kind == "program":
        return []
    equations = arithmetic.find_equations(text)
    if marks := arithmetic.CALCULATOR_MARK.findall(text):
        marked = [equation.holds for equation in equations if equation.marked]
        return marked + [False] * (len(marks) - len(marked))
    holds = [equation.holds for equation in equations]
    return holds + arithmetic.check_simplifications(text) if kind == "expression" else holds


def _share(holds: list[bool]) -> float:
    return sum(holds) / len(holds) if holds else 0.0


def _tokens(completions: Column, completion_ids: Column | None) -> list[Sequence]:
    """Return the token ids that TRL hands over, else the words of the texts."""
    return completion_ids or [text.split() for text in texts(completions)]


def _is_tagged(text: str) -> bool:
    match = TAGGED.fullmatch(text)
    return match is not None and all(part.strip() for part in match.groups())


def _is_json(text: str) -> bool:
    """Return whether the text is a JSON object of the keys think and answer, neither empty."""
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
    completions: Column,
    answer: list[str],
    kind: list[str],
    asked: Sequence[str] = (),
    log_metric: Callable | None = None,
    **_: Any,
) -> tuple[grading.Verdict, ...]:
    """Return the verdicts of a batch; log to TRL which share of it could not be compared.

    A program that times out or raises is a wrong answer. Many comparisons of numbers or expressions
    that time out or raise mean that the grader is broken, and rewards of 0 would hide that.

    Raises:
        StudyError: Too many comparisons failed.
    """
    verdicts = _graded(tuple(texts(completions)), tuple(answer), tuple(kind), tuple(asked))
    if log_metric is not None:
        for reason in FAILURES:  # TRL takes the mean of what several rewards log
            count = sum(verdict.reason == reason for verdict in verdicts)
            log_metric(f"graded/{reason}", count / len(verdicts))
    compared = [v for v, k in zip(verdicts, kind, strict=True) if k != "program"]
    failed = [verdict for verdict in compared if verdict.reason in ("timeout", "error")]
    if len(failed) > max(8, len(compared) / 10):
        raise StudyError(
            f"the grader failed on {len(failed)} of {len(compared)} answers, which is not their "
            f"fault alone (the last: {failed[-1].error}); check math-verify before training on"
        )
    return verdicts


@lru_cache(maxsize=4)
def _graded(
    completions: tuple, answer: tuple, kind: tuple, asked: tuple
) -> tuple[grading.Verdict, ...]:
    return tuple(grading.grade_many(completions, answer, kind, asked))
