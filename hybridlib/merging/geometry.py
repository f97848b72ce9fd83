"""How alike are two weight updates of one base, and what does an update do to the base's spectrum?

An update maps module name -> delta (out, in), as `merge.deltas` returns it; all is computed in
float64, one module at a time. Two random updates of a million entries are nearly orthogonal, so
nothing here stands alone: a share of energy comes with its chance value, and `null_distribution`
gives what random directions would score. A zero delta has no direction: its cosines, shares and
ratios are 0.
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
TOP_SHARE = 0.1  # of the entries of a matrix, those that count as its largest, or smallest
SPECTRAL_MEASURES = (
    "residual",
    "shift",
    "lost",
    "kappa",
    "rotation_left",
    "rotation_right",
    "principal",
    "low_magnitude",
)
NORMALISERS = {
    "cosine": ("norm2_first", "norm2_second"),
    "functional": ("moment_first", "moment_second"),
    "energy": ("norm2_second", "norm2_second"),
    "chance": ("norm2_second", "norm2_second"),
    "angles": ("angle_count", "angle_count"),
}
"""Measure of two updates (without its side) -> the two sums whose geometric mean divides it."""


# ---------------------------------------------------------------- two updates


def similarity(
    first: Update, second: Update, input_moments: dict[str, Tensor] | None = None
) -> dict[str, Any]:
    """Compare two updates of one base, over all modules and in each.

    Args:
        input_moments: module -> C (in, in), the mean of x x^T over the inputs x of the module.

    Returns:
        cosine: of the two updates as vectors, -1 to 1.
        energy_left, energy_right: the share of the second's squared norm that lies in the column
            and in the row space of the first, 0 to 1.
        chance_left, chance_right: that share for a second update without preferred directions,
            r / out and r / in, where r is the numerical rank of the first.
        angles_left, angles_right: the mean cosine of the principal angles between the two column
            spaces and between the two row spaces, 0 to 1.
        functional (with input_moments): the cosine of what the two add to the module's outputs,
            tr(D1 C D2^T) / sqrt(tr(D1 C D1^T) tr(D2 C D2^T)).
        modules: module -> the same for it alone.

        Over all modules an update is one long vector and a space the direct sum of the modules'
        spaces, so chance is weighted by the energy of the second update in each module; the angles
        are averaged over those of all modules.

    A module that one update lacks counts as zero there. Raises StudyError for a module of two
    shapes and for one without input moments where these are given.
    """
    import torch

    total, modules = Counter(), {}
    for module, delta, other, moment in _matched_modules(first, second, input_moments):
        left, _, right = truncated_svd(delta)
        other_left, _, other_right = truncated_svd(other)
        sums = _energy_sums(delta, other, left, right, moment)
        for side, basis, other_basis in (("left", left, other_left), ("right", right, other_right)):
            sums[f"chance_{side}"] = sums["norm2_second"] * basis.shape[1] / len(basis)
            # The singular values of the product are the cosines of the principal angles.
            sums[f"angles_{side}"] = float(torch.linalg.svdvals(basis.T @ other_basis).sum())
            sums["angle_count"] = min(basis.shape[1], other_basis.shape[1])
        total.update(sums)
        modules[module] = _normalise(sums)
    return _normalise(total) | {"modules": modules}


def null_distribution(
    first: Update,
    second: Update,
    generator: torch.Generator,
    draws: int,
    input_moments: dict[str, Tensor] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the scores of `similarity`, over all modules, for random directions of `second`.

    Args:
        draws: at least two; each replaces every module of `second` under both null models.

    Returns:
        Null model (`permuted`, `isotropic`, see the functions) -> measure (cosine, energy_left,
        energy_right and, with input moments, functional) -> mean and sd (n - 1) over the draws.
    """
    totals = {name: [Counter() for _ in range(draws)] for name in ("permuted", "isotropic")}
    for _, delta, other, moment in _matched_modules(first, second, input_moments):
        left, _, right = truncated_svd(delta)
        singular_values = truncated_svd(other)[1]
        for draw in range(draws):
            replacements = {
                "permuted": permuted(other, generator),
                "isotropic": _random_matrix(singular_values, other.shape, generator),
            }
            for name, replacement in replacements.items():
                totals[name][draw].update(_energy_sums(delta, replacement, left, right, moment))
    return {name: _spread([_normalise(sums) for sums in drawn]) for name, drawn in totals.items()}


def permuted(delta: Tensor, generator: torch.Generator) -> Tensor:
    """Return the delta with its rows and its columns in random order.

    Keeps the entries and the singular values, and loses which row or column they belong to.
    """
    import torch

    rows, columns = (torch.randperm(size, generator=generator) for size in delta.shape)
    return delta[rows][:, columns]


def isotropic(delta: Tensor, generator: torch.Generator) -> Tensor:
    """Return a delta with the same singular values and random (Haar) singular vectors."""
    return _random_matrix(truncated_svd(delta)[1], delta.shape, generator).to(delta.dtype)


def truncated_svd(delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (out, r), singular values (r,), V (in, r) in float64; r is the numerical rank.

    U diag(values) V^T is the delta; r may be 0.
    """
    import torch

    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    # What float32 arithmetic left behind is no direction of the update.
    rank = int((values > torch.finfo(torch.float32).eps * values.norm()).sum())
    return left[:, :rank], values[:rank], right[:rank].T


def _matched_modules(
    first: Update, second: Update, input_moments: dict[str, Tensor] | None
) -> Iterator[tuple[str, Tensor, Tensor, Tensor | None]]:
    """Yield module, both deltas and C or None, in float64; a missing delta is zero."""
    for module in sorted({*first, *second}):
        present = first.get(module, second.get(module))
        zero = present.new_zeros(present.shape)
        delta, other = (update.get(module, zero).double() for update in (first, second))
        if delta.shape != other.shape:
            raise StudyError(f"{module} has two shapes; are these updates of one base?")
        if input_moments is None:
            yield module, delta, other, None
            continue
        if module not in input_moments:
            raise StudyError(f"there are no inputs of {module}; give those of all modules, or none")
        yield module, delta, other, input_moments[module].double()


def _energy_sums(
    delta: Tensor, other: Tensor, left: Tensor, right: Tensor, moment: Tensor | None
) -> dict[str, float]:
    """Return inner products and energies; `left` (out, r), `right` (in, r) are delta's U and V."""
    products = {
        "cosine": delta * other,
        "norm2_first": delta * delta,
        "norm2_second": other * other,
        "energy_left": (left.T @ other).square(),
        "energy_right": (other @ right).square(),
    }
    if moment is not None:
        weighted = delta @ moment
        products["functional"] = weighted * other
        products["moment_first"] = weighted * delta
        products["moment_second"] = (other @ moment) * other
    return {name: float(product.sum()) for name, product in products.items()}


def _normalise(sums: dict[str, float]) -> dict[str, float]:
    """Return cosines and shares for the sums of one module or of all; see NORMALISERS."""
    measures = {}
    for name, value in sums.items():
        normalisers = NORMALISERS.get(name.partition("_")[0])
        if normalisers:
            divisor = math.prod(math.sqrt(max(sums[part], 0)) for part in normalisers)
            measures[name] = max(-1.0, min(1.0, _ratio(value, divisor)))
    return measures


def _spread(samples: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return measure -> mean and sample standard deviation."""
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {name: {"mean": fmean(drawn), "sd": stdev(drawn)} for name, drawn in columns.items()}


def _random_matrix(
    singular_values: Tensor, shape: torch.Size, generator: torch.Generator
) -> Tensor:
    """Return a matrix (out, in) of these singular values with random singular vectors."""
    import torch

    bases = []
    for size in shape:
        gaussian = torch.randn(size, len(singular_values), dtype=torch.float64, generator=generator)
        q, r = torch.linalg.qr(gaussian)
        # Without the signs the basis would not be Haar distributed (Mezzadri, math-ph/0609050).
        bases.append(q * r.diagonal().sign())
    return (bases[0] * singular_values) @ bases[1].T


# ---------------------------------------------------------------- an update and its base


def spectral_measures(weight: Tensor, delta: Tensor, principal_rank: int = 0) -> dict[str, float]:
    """Measure what an update does to the singular values, directions and entries of its weight.

    Args:
        weight: W (out, in), of which `delta`, dW, is an update.
        principal_rank: k, the directions that count as principal; 0 = a sixteenth of the
            q = min(out, in), between 1 and 64. That is 64 of 1024, as arXiv:2511.08567 has it for
            large models, and 8 of 128.

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
        return dict.fromkeys(SPECTRAL_MEASURES, 0.0)
    weight, delta = weight.double(), delta.double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    left_after, values_after, right_after = torch.linalg.svd(weight + delta, full_matrices=False)
    k = principal_rank or max(1, min(64, len(values) // 16))
    spectrum_change, norm = float((values_after - values).norm()), float(delta.norm())
    along_singular_vectors = float(((left.T @ delta) * right).sum(1).norm())
    low_rank = (left[:, :k] * values[:k]) @ right[:k]
    updated = _largest_entries(delta.abs()) & (delta != 0)
    loss = rounded(weight, delta) - unrounded(weight, delta)
    return {
        "residual": spectrum_change / norm,
        "shift": _ratio(spectrum_change, float(values.norm())),
        "lost": float(loss.norm()) / norm,
        "kappa": (along_singular_vectors / norm) ** 2 * delta.numel() / len(values),
        "rotation_left": _mean_principal_angle(left[:, :k], left_after[:, :k]),
        "rotation_right": _mean_principal_angle(right[:k].T, right_after[:k].T),
        "principal": _over_chance(updated, _largest_entries(low_rank.abs())),
        "low_magnitude": _over_chance(updated, _largest_entries(-weight.abs())),
    }


def pooled_spectral_measures(weights: Update, deltas: Update) -> dict[str, float]:
    """Return the measures of `spectral_measures` over all modules of an update.

    residual, shift and lost divide norms over all modules (roots of sums of squares); all other
    measures are averaged with equal weights. Modules whose delta is zero are not counted.
    """
    changed = [module for module, delta in deltas.items() if delta.any()]
    if not changed:
        return dict.fromkeys(SPECTRAL_MEASURES, 0.0)
    parts = [spectral_measures(weights[module], deltas[module]) for module in changed]
    pooled = {name: fmean(part[name] for part in parts) for name in SPECTRAL_MEASURES}
    for name, relative_to in (("residual", deltas), ("shift", weights), ("lost", deltas)):
        norms = [float(relative_to[module].double().norm()) for module in changed]
        absolute = [part[name] * norm for part, norm in zip(parts, norms, strict=True)]
        pooled[name] = _ratio(math.hypot(*absolute), math.hypot(*norms))
    return pooled


def isospectral(weight: Tensor, delta: Tensor) -> Tensor:
    """Return the update without its change of the spectrum: U+ S0 V+^T - W (ISO, arXiv:2607.19331).

    U+ and V+ are the singular vectors of W + dW, S0 the singular values of W, both in descending
    order. Of all matrices with the spectrum of W, W plus the result is the nearest to W + dW; their
    distance is `residual` ||dW|| (see `spectral_measures`).
    """
    import torch

    if not delta.any():
        return delta.clone()
    weight = weight.double()
    left, _, right = torch.linalg.svd(weight + delta.double(), full_matrices=False)
    return ((left * torch.linalg.svdvals(weight)) @ right - weight).to(delta.dtype)


def rounded(weight: Tensor, delta: Tensor) -> Tensor:
    """Return the update that is left after merging into a bfloat16 base: bf16(bf16(W) + dW) - W.

    It holds the rounding of the base as well, bf16(W) - W; `unrounded` is the control for that.
    """
    merged = weight.bfloat16().double() + delta.double()
    return (merged.bfloat16().double() - weight.double()).to(delta.dtype)


def unrounded(weight: Tensor, delta: Tensor) -> Tensor:
    """Return the update kept exact beside the same bfloat16 base: bf16(W) + dW - W."""
    return (weight.bfloat16().double() + delta.double() - weight.double()).to(delta.dtype)


def _ratio(value: float, divisor: float) -> float:
    """Return value / divisor, or 0 where the divisor is 0."""
    return value / divisor if divisor else 0.0


def _mean_principal_angle(before: Tensor, after: Tensor) -> float:
    """Return the mean principal angle, in degrees, of two spaces given as orthonormal (size, k)."""
    import torch

    shared = before.T @ after
    cosines = torch.linalg.svdvals(shared)
    sines = torch.linalg.svdvals(after - before @ shared).flip(0)  # exact where a cosine is not
    return float(torch.atan2(sines, cosines).rad2deg().mean())


def _largest_entries(scores: Tensor) -> Tensor:
    """Return the mask of the TOP_SHARE of entries with the highest scores, and all that tie."""
    count = max(1, round(TOP_SHARE * scores.numel()))
    return scores >= scores.flatten().topk(count).values[-1]


def _over_chance(selected: Tensor, region: Tensor) -> float:
    """Return the share of the selected entries that lie in a region, over the region's size."""
    return float(region[selected].double().mean() / region.double().mean())
