"""Where do claims register? Apart from the claims, so that anything may look them up."""

from hybridlib.registry import Registry

CLAIMS = Registry(
    "claim", "code", "effects", "says", "source", "grid", "chapter", "figure", "dated"
)
"""name -> (profile) -> the comparisons that decide the claim; its docstring is the rule.

Facts: `effects` is how many effects the comparisons have, `grid` the one whose sweep makes their
runs, `figure` the cell of `chapter` that draws them, and `dated` the day on which the rule was
written, before the runs that are its own; git shows it.
"""
