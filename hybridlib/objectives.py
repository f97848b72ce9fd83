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
TOP_SHARE = 0.5  # of the tokens, which `top_entropy` imitates


class Tokens(NamedTuple):
    """The n tokens of a batch that are imitated."""

    label_log_probs: Tensor  # (n,) log-probability of each label
    log_probs: Tensor  # (n, vocabulary)
    labels: Tensor  # (n,) ids
    base_log_probs: Callable[[], Tensor]  # `log_probs` with the adapter off, a constant

    def label_probs(self) -> Tensor:
        """Return p, the probability of each label (n,), a constant to the gradient."""
        return self.label_log_probs.detach().exp()


@OBJECTIVES.register
def nll(tokens: Tokens) -> Tensor:
    """Maximum likelihood: w = 1. What everybody calls SFT."""
    return -tokens.label_log_probs


@OBJECTIVES.register
def dft(tokens: Tokens) -> Tensor:
    """Dynamic fine-tuning: w = p, so that improbable labels teach little (arXiv:2508.05629)."""
    return -tokens.label_probs() * tokens.label_log_probs


@OBJECTIVES.register
def asft(tokens: Tokens) -> Tensor:
    """Anchored SFT: DFT plus ANCHOR times KL(base || policy) per token (arXiv:2509.23753)."""
    base = tokens.base_log_probs()
    kl = (base.exp() * (base - tokens.log_probs)).sum(-1)
    return dft(tokens) + ANCHOR * kl


@OBJECTIVES.register
def chord_phi(tokens: Tokens) -> Tensor:
    """CHORD's phi: w = p (1 - p), most where the policy is undecided (arXiv:2508.11408)."""
    p = tokens.label_probs()
    return -p * (1 - p) * tokens.label_log_probs


@OBJECTIVES.register
def luffy(tokens: Tokens) -> Tensor:
    """LUFFY's shaping of an off-policy token: w = g p / (p + g)^2, g = SHAPE (arXiv:2504.14945).

    The gradient of p / (p + g), which lifts improbable labels more than DFT does.
    """
    p = tokens.label_probs()
    return -SHAPE * p / (p + SHAPE) ** 2 * tokens.label_log_probs


@OBJECTIVES.register
def otr(tokens: Tokens) -> Tensor:
    """One-token rollouts, in expectation instead of by sampling (arXiv:2509.26313).

    A token is drawn from the policy at TEMPERATURE; the label earns 1, any other PENALTY. At
    temperature 1 this is DFT times (1 - PENALTY), because probabilities sum to one.
    """
    return expected_otr(tokens, TEMPERATURE, PENALTY)


@OBJECTIVES.register
def top_entropy(tokens: Tokens) -> Tensor:
    """Imitation of the TOP_SHARE of tokens where the policy's entropy is highest.

    The forking tokens of Wang et al. 2025 (arXiv:2506.01939), applied to SFT.
    """
    entropy = -(tokens.log_probs.exp() * tokens.log_probs).sum(-1).detach()
    is_top = entropy >= entropy.quantile(1 - TOP_SHARE)
    return -(is_top * tokens.label_log_probs) / TOP_SHARE


@OBJECTIVES.register
def smooth(tokens: Tokens) -> Tensor:
    """Label smoothing of 0.1 (Szegedy et al. 2016): the plain way to keep entropy, as a control."""
    return -0.9 * tokens.label_log_probs - 0.1 * tokens.log_probs.mean(-1)


def expected_otr(tokens: Tokens, temperature: float, penalty: float) -> Tensor:
    """Return the loss whose gradient is the expected policy gradient of a one-token rollout.

    Args:
        temperature: At which the token is drawn.
        penalty: What a token other than the label earns.
    """
    drawn = (tokens.log_probs.detach() / temperature).softmax(-1)
    hit = drawn.gather(1, tokens.labels[:, None])[:, 0]
    missed = (drawn * tokens.log_probs).sum(-1) - hit * tokens.label_log_probs
    return -hit * tokens.label_log_probs - penalty * missed
