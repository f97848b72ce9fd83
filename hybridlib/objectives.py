"""What does SFT minimise? Token-weighted imitation: one loss, many papers, one function each.

An objective maps the tokens to imitate to a loss per token. Most are a weight on the negative
log-likelihood, -w log p of the label, where w is a constant to the gradient; together they fill the
space between imitation (w = 1) and a policy gradient on one demonstration (w = p, as a policy that
samples the label with probability p and is rewarded for it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hybridlib.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

OBJECTIVES = Registry("objective")
ANCHOR = 0.05  # weight of ASFT's KL term
SHAPE = 0.1  # LUFFY's gamma
PENALTY, TEMPERATURE = -0.1, 1.3  # OTR's reward of a miss and its sampling temperature
KEPT = 0.5  # share of the tokens that `top_entropy` keeps


class Tokens(NamedTuple):
    """The n tokens of a batch that are imitated."""

    logps: Tensor  # (n,) log-probability of the label
    every: Tensor  # (n, vocabulary) log-probabilities
    labels: Tensor  # (n,) ids
    base: Callable[[], Tensor]  # `every` with the adapter off, a constant


@OBJECTIVES.register
def nll(t: Tokens) -> Tensor:
    """Maximum likelihood: w = 1. What everybody calls SFT."""
    return -t.logps


@OBJECTIVES.register
def dft(t: Tokens) -> Tensor:
    """Dynamic fine-tuning: w = p, so that improbable labels teach little (arXiv:2508.05629)."""
    return -_p(t) * t.logps


@OBJECTIVES.register
def asft(t: Tokens) -> Tensor:
    """Anchored SFT: DFT plus ANCHOR times KL(base || policy) per token (arXiv:2509.23753)."""
    base = t.base()
    return dft(t) + ANCHOR * (base.exp() * (base - t.every)).sum(-1)


@OBJECTIVES.register
def chord_phi(t: Tokens) -> Tensor:
    """CHORD's phi: w = p (1 - p), most where the policy is undecided (arXiv:2508.11408)."""
    return -_p(t) * (1 - _p(t)) * t.logps


@OBJECTIVES.register
def luffy(t: Tokens) -> Tensor:
    """LUFFY's shaping of an off-policy token: w = g p / (p + g)^2, g = SHAPE (arXiv:2504.14945).

    The gradient of p / (p + g), which lifts improbable labels more than DFT does.
    """
    return -SHAPE * _p(t) / (_p(t) + SHAPE) ** 2 * t.logps


@OBJECTIVES.register
def otr(t: Tokens) -> Tensor:
    """One-token rollouts, in expectation instead of by sampling (arXiv:2509.26313).

    A token is drawn from the policy at TEMPERATURE; the label earns 1, any other PENALTY. At
    temperature 1 this is DFT times (1 - PENALTY), because probabilities sum to one.
    """
    return expected_otr(t, TEMPERATURE, PENALTY)


@OBJECTIVES.register
def top_entropy(t: Tokens) -> Tensor:
    """Imitate only the KEPT share of tokens where the policy's entropy is highest.

    The forking tokens of Wang et al. 2025 (arXiv:2506.01939), applied to SFT.
    """
    entropy = -(t.every.exp() * t.every).sum(-1).detach()
    kept = entropy >= entropy.quantile(1 - KEPT)
    return -(kept * t.logps) / KEPT


@OBJECTIVES.register
def smooth(t: Tokens) -> Tensor:
    """Label smoothing of 0.1 (Szegedy et al. 2016): the plain way to keep entropy, as a control."""
    return -0.9 * t.logps - 0.1 * t.every.mean(-1)


def expected_otr(t: Tokens, temperature: float, penalty: float) -> Tensor:
    """The loss whose gradient is the expected policy gradient of a one-token rollout."""
    drawn = (t.every.detach() / temperature).softmax(-1)
    hit = drawn.gather(1, t.labels[:, None])[:, 0]
    missed = (drawn * t.every).sum(-1) - hit * t.logps
    return -hit * t.logps - penalty * missed


def _p(t: Tokens) -> Tensor:
    return t.logps.detach().exp()
