"""The graders that are compared: the study's, math-verify (Kydlicek 2025) and TRL's reward."""

from collections.abc import Callable

from hybridlib import grading

Grader = Callable[..., bool]  # (gold, text in which the answer is boxed); ours also what is asked


def ours(gold: str, text: str, asked: str = "") -> bool:
    """Return the verdict of the study's grader, given what the question asks for."""
    return grading.grade(text, gold, "expression", asked).correct


def math_verify(gold: str, text: str) -> bool:
    """Return math-verify's verdict in this process, both sides boxed, which is its best form."""
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(text)))


def trl_reward(gold: str, text: str) -> bool:
    """Return the verdict of TRL's accuracy_reward, the gold as a formula."""
    from trl.rewards import accuracy_reward

    return accuracy_reward([[{"role": "assistant", "content": text}]], [f"${gold}$"])[0] == 1.0


GRADERS: dict[str, Grader] = {
    "ours": ours,
    "math-verify": math_verify,
    "TRL's accuracy_reward": trl_reward,
}


def accepts(grader: Grader, gold: str, answer: str, *asked: str) -> bool:
    """Say whether a grader accepts an answer in a box; one that raises has refused it."""
    try:
        return grader(gold, sentence(answer), *asked)
    except Exception:
        return False


def sentence(answer: str) -> str:
    """Return a text in which this answer is boxed; one that has a box is such a text."""
    if "\\boxed{" in answer:
        return answer
    return f"The answer is $\\boxed{{{answer}}}$."
