"""How do two updates of one base lie to each other, and to the base?

Any two updates of a million entries are nearly orthogonal, so nothing here stands alone: a share of
energy comes with its chance value, and `null` says what random directions would score.
An update is what `merge.deltas` gives, module name -> delta (out, in); all is computed in float64,
one module at a time. A zero delta has no direction: cosines, shares and ratios to it are 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Update = dict[str, "Tensor"]  # module -> delta (out, in)
ALPHA = 0.1  # share of the entries of a matrix that count as its largest, or smallest
MEASURES = ("residual", "shift", "lost", "kappa", "rotation_left", "rotation_right", "principal",
            "low_magnitude")  # fmt: skip
OVER = dict(  # measure of two updates -> the two sums whose geometric mean divides it
    cosine=("one", "other"), functional=("read_one", "read_other"), energy=("other", "other"),
    chance=("other", "other"), angles=("count", "count"),
)  # fmt: skip


def between(one: Update, other: Update, inputs: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """How do two updates lie to each other, over all modules and in each?

    Args:
        inputs: module -> C (in, in), the mean of x x^T over what the module reads.

    Returns:
        cosine; energy_left, energy_right: the share of ||other||^2 in the column and in the row
        space of `one`, beside chance_left, chance_right, what a direction without preference would
        give: r / out and r / in, r the numerical rank of `one`; angles_left, angles_right: the mean
        cosine of the principal angles between the column and between the row spaces; with inputs,
        functional: tr(D1 C D2^T) / sqrt(tr(D1 C D1^T) tr(D2 C D2^T)), the cosine of what the two
        add to the outputs; and modules: the same of each module. Over all modules an update is one
        long vector, a space the direct sum of the modules' (so chance is weighted by the energy of
        `other` in each), and the angles are averaged over all modules' angles.
        A module that one update lacks counts as zero there; with another shape, or without inputs
        where inputs are given, it is refused (StudyError).
    """
    import torch

    total, modules = Counter(), {}
    for module, first, second, moment in _pairs(one, other, inputs):
        left, _, right = frames(first)
        left_too, _, right_too = frames(second)
        terms = _terms(first, second, left, right, moment)
        for side, frame, too in (("left", left, left_too), ("right", right, right_too)):
            terms[f"chance_{side}"] = terms["other"] * frame.shape[1] / len(frame)
            terms[f"angles_{side}"] = float(torch.linalg.svdvals(frame.T @ too).sum())
            terms["count"] = min(frame.shape[1], too.shape[1])
        total.update(terms)
        modules[module] = _measures(terms)
    return _measures(total) | {"modules": modules}


def permuted(delta: Tensor, generator: torch.Generator) -> Tensor:
    """The update with its rows and its columns in random order: entries, spectrum, no places."""
    import torch

    rows, columns = (torch.randperm(n, generator=generator) for n in delta.shape)
    return delta[rows][:, columns]


def isotropic(delta: Tensor, generator: torch.Generator) -> Tensor:
    """An update with the singular values of `delta` between random (Haar) frames: spectrum only."""
    return _turned(frames(delta)[1], delta.shape, generator).to(delta.dtype)


def null(
    one: Update, other: Update, generator: torch.Generator, draws: int,
    inputs: dict[str, Tensor] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """What would `between` say, over all modules, of an `other` with random directions?

    "permuted" and "isotropic" -> cosine, energy_left, energy_right and, with inputs, functional ->
    mean and sd (n - 1) over two or more draws, each of which replaces every module of `other`.
    """
    totals = {name: [Counter() for _ in range(draws)] for name in ("permuted", "isotropic")}
    for _, first, second, moment in _pairs(one, other, inputs):
        left, _, right = frames(first)
        values = frames(second)[1]
        for i in range(draws):
            drawn = permuted(second, generator), _turned(values, second.shape, generator)
            for name, replaced in zip(totals, drawn, strict=True):
                totals[name][i].update(_terms(first, replaced, left, right, moment))
    found = {}
    for name, parts in totals.items():
        samples = [_measures(part) for part in parts]
        columns = {key: [sample[key] for sample in samples] for key in samples[0]}
        found[name] = {key: {"mean": fmean(x), "sd": stdev(x)} for key, x in columns.items()}
    return found


def spectrum(weight: Tensor, delta: Tensor, k: int = 0) -> dict[str, float]:
    """What does an update do to the singular values, the principal directions, the entries of W?

    Args:
        k: directions that count as principal; 0 = a sixteenth of the q = min(out, in), between 1
            and 64. That is 64 of 1024, as arXiv:2511.08567 has it for large models, and 8 of 128.

    Returns, with sigma the singular values in descending order (dW = 0 gives 0 everywhere):
        residual: ||sigma(W + dW) - sigma(W)|| / ||dW||, 0..1, the share of the update that no
            rotation of the singular vectors explains (ISO, arXiv:2607.19331);
        shift: the same over ||sigma(W)||, the normalised spectral shift of arXiv:2511.08567;
        kappa: the share of ||dW||^2 along the u_i v_i^T of W, which alone move the singular values
            to first order, over q / (out in): 1 for an update without preference, out in / q, the
            most, for one that leaves all singular vectors;
        rotation_left, rotation_right: mean principal angle, in degrees, between the k principal
            directions of W and of W + dW; the smallest update turns them if the next singular
            value comes close to the k-th;
        principal, low_magnitude: of the largest tenth of the entries of dW, the share that lies on
            the largest tenth of W's rank-k reconstruction, and on the smallest of W, over chance;
        lost: ||bf16(W + dW) - W - dW|| / ||dW||, of W rounded to bfloat16 beforehand, as published
            bases are: what a merge loses; at most 1 and 2^-8 ||W + dW|| / ||dW||.
    """
    import torch

    if not delta.any():
        return dict.fromkeys(MEASURES, 0.0)
    weight, delta = weight.double(), delta.double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    left_after, after, right_after = torch.linalg.svd(weight + delta, full_matrices=False)
    moved, size = float((after - values).norm()), float(delta.norm())
    k = k or max(1, min(64, len(values) // 16))
    along = float(((left.T @ delta) * right).sum(1).norm())
    updated = _largest(delta.abs()) & (delta != 0)
    low_rank = (left[:, :k] * values[:k]) @ right[:k]
    principal, low = (
        float(place[updated].double().mean() / place.double().mean())
        for place in (_largest(low_rank.abs()), _largest(-weight.abs()))
    )
    return {
        "residual": moved / size,
        "shift": _ratio(moved, float(values.norm())),
        "lost": float((rounded(weight, delta) - unrounded(weight, delta)).norm()) / size,
        "kappa": (along / size) ** 2 * delta.numel() / len(values),
        "rotation_left": _rotation(left[:, :k], left_after[:, :k]),
        "rotation_right": _rotation(right[:k].T, right_after[:k].T),
        "principal": principal,
        "low_magnitude": low,
    }


def spectra(weights: Update, deltas: Update) -> dict[str, float]:
    """What does an update do to a whole base? The measures of `spectrum` over its modules.

    Norms are taken over all modules (roots of sums of squares) before they are divided, all else
    is averaged with equal weights. Modules whose delta is zero are not counted.
    """
    changed = [module for module, delta in deltas.items() if delta.any()]
    if not changed:
        return dict.fromkeys(MEASURES, 0.0)
    found = [spectrum(weights[module], deltas[module]) for module in changed]
    total = {name: fmean(part[name] for part in found) for name in MEASURES}
    for name, below in (("residual", deltas), ("shift", weights), ("lost", deltas)):
        norms = [float(below[module].double().norm()) for module in changed]
        above = math.hypot(*(part[name] * norm for part, norm in zip(found, norms, strict=True)))
        total[name] = _ratio(above, math.hypot(*norms))
    return total


def restored(weight: Tensor, delta: Tensor) -> Tensor:
    """The update without its change of the spectrum: U+ S0 V+^T - W (ISO, arXiv:2607.19331).

    U+ and V+ are the singular vectors of W + dW, S0 the singular values of W, both in descending
    order. W + dW has no nearer matrix with that spectrum: residual ||dW|| is what is taken away.
    """
    import torch

    if not delta.any():
        return delta.clone()
    weight = weight.double()
    left, _, right = torch.linalg.svd(weight + delta.double(), full_matrices=False)
    return ((left * torch.linalg.svdvals(weight)) @ right - weight).to(delta.dtype)


def rounded(weight: Tensor, delta: Tensor) -> Tensor:
    """What stays of an update that is merged into a bfloat16 base: bf16(bf16(W) + dW) - W.

    It holds the rounding of the base as well, bf16(W) - W; `unrounded` is the control for that.
    """
    merged = weight.bfloat16().double() + delta.double()
    return (merged.bfloat16().double() - weight.double()).to(delta.dtype)


def unrounded(weight: Tensor, delta: Tensor) -> Tensor:
    """The same update on the same bfloat16 base, kept exact: bf16(W) + dW - W."""
    return (weight.bfloat16().double() + delta.double() - weight.double()).to(delta.dtype)


def _pairs(one: Update, other: Update, inputs: dict[str, Tensor] | None) -> Iterator[tuple]:
    """Module, both deltas, C or None, in float64; a missing delta is zero."""
    for module in sorted({*one, *other}):
        known = one.get(module, other.get(module))
        zero = known.new_zeros(known.shape)
        first, second = (part.get(module, zero).double() for part in (one, other))
        if first.shape != second.shape:
            raise StudyError(f"{module} has two shapes; are these updates of one base?")
        if inputs is not None and module not in inputs:
            raise StudyError(f"there are no inputs of {module}; give those of all modules, or none")
        yield module, first, second, None if inputs is None else inputs[module].double()


def frames(delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, r), singular values (r,), V (in, r) in float64, r the numerical rank, perhaps 0."""
    import torch

    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    # What float32 arithmetic left behind is no direction of the update.
    rank = int((values > torch.finfo(torch.float32).eps * values.norm()).sum())
    return left[:, :rank], values[:rank], right[:rank].T


def _turned(values: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """A matrix (out, in) with these singular values between two random frames."""
    import torch

    frames = []
    for rows in shape:
        gaussian = torch.randn(rows, len(values), dtype=torch.float64, generator=generator)
        q, r = torch.linalg.qr(gaussian)
        frames.append(q * r.diagonal().sign())  # Haar only so (Mezzadri, arXiv:math-ph/0609050)
    return (frames[0] * values) @ frames[1].T


def _terms(
    one: Tensor, other: Tensor, left: Tensor, right: Tensor, moment: Tensor | None
) -> dict[str, float]:
    """What adds up over modules; `left` (out, r) and `right` (in, r) are the frames of `one`."""
    products = {
        "cosine": one * other, "one": one * one, "other": other * other,
        "energy_left": (left.T @ other).square(), "energy_right": (other @ right).square(),
    }  # fmt: skip
    if moment is not None:
        read = one @ moment
        products |= {"functional": read * other, "read_one": read * one,
                     "read_other": (other @ moment) * other}  # fmt: skip
    return {key: float(product.sum()) for key, product in products.items()}


def _measures(terms: dict[str, float]) -> dict[str, float]:
    """Sums of `_terms`, and those that `between` adds to them, to cosines and shares."""
    found = {}
    for key, value in terms.items():
        if sizes := OVER.get(key.partition("_")[0]):
            below = math.prod(math.sqrt(max(terms[size], 0)) for size in sizes)
            found[key] = max(-1.0, min(1.0, _ratio(value, below)))
    return found


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0


def _rotation(before: Tensor, after: Tensor) -> float:
    """Mean principal angle, in degrees, between two spaces given by orthonormal columns."""
    import torch

    shared = before.T @ after
    cosines = torch.linalg.svdvals(shared)
    sines = torch.linalg.svdvals(after - before @ shared).flip(0)  # exact where a cosine is not
    return float(torch.atan2(sines, cosines).rad2deg().mean())


def _largest(scores: Tensor) -> Tensor:
    """Mask of the share ALPHA of the entries with the largest scores, at least one, and of ties."""
    count = max(1, round(ALPHA * scores.numel()))
    return scores >= scores.flatten().topk(count).values[-1]
