"""Where do claims register? Apart from the claims, so that anything may look them up."""

from hybridlib.registry import Registry

CLAIMS = Registry(
    "claim",
    "code",
    "says",
    "source",
    "dated",
    optional=("grid", "chapter", "figure", "equivalence", "agrees", "withdrawn", "costs"),
)
"""name -> (profile) -> `contrasts.Effects`; the docstring is the rule.

Facts: `dated` is the day on which the rule was written, before the runs that are its own; git
shows it. `grid` is the one that has the runs of the first stage, `figure` the cell of `chapter`
that draws the effects.
equivalence: true where the claim is that there is no difference that matters.
agrees: of a claim without runs, the claims whose verdicts it compares over sizes.
withdrawn: why a claim is judged no more.
costs: true where arms have to cost the same, and the page shows what they did cost.
"""
