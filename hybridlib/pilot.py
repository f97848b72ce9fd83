"""Is there anything to reinforce? A few groups of answers, sampled before a GRPO run starts.

Where no answer is right, no group has anything to choose between, and training finds what pays by
accident: a guess, a form. That is cheap to see beforehand, by the answers that training would see.
"""

from typing import Any, NamedTuple

from hybridlib import StudyError, estimate, files, grading, models, study
from hybridlib.engine import ends, rollout
from hybridlib.methods import METHODS
from hybridlib.profiles import Profile
from hybridlib.runs import Run

PROMPTS = 32  # rows that are asked
LEAST = 0.02  # share of right answers from which on a run is started


class Pilot(NamedTuple):
    """What a model answers to a few training rows before it is trained on them."""

    group: int  # answers per row
    right: list[int]  # of each row's answers, in the form that is graded
    lenient: float  # share of answers that are right wherever the answer stands
    cut: float  # share of answers that reached the limit of tokens

    @property
    def strict(self) -> float:
        """Share of answers that are right, the pass rate."""
        return sum(self.right) / (self.group * len(self.right))

    @property
    def informative(self) -> float:
        """Share of groups with right and wrong answers, which alone have an advantage.

        Counted, and so unbiased whatever the rows' pass rates are.
        """
        return sum(0 < count < self.group for count in self.right) / len(self.right)

    @property
    def informative_if_alike(self) -> float:
        """1 - p^G - (1 - p)^G: the share of such groups if every row had the same pass rate."""
        return 1 - self.strict**self.group - (1 - self.strict) ** self.group


def is_needed(run: Run) -> bool:
    """Return whether right answers of its own are what a run learns from, and nothing else."""
    method = METHODS[run.method]
    other_sources = {"solutions", "teacher"} & {*method.needs}
    return method.trainer == "grpo" and not other_sources and "correct" in run.rewards


def check(run: Run, profile: Profile) -> None:
    """Print what `measure` finds of a run that learns from right answers alone.

    Raises:
        StudyError: fewer than LEAST of the answers are right; names what helps.
    """
    if not is_needed(run):
        return
    pilot = measure(run, profile)
    print(
        f"before training: {pilot.strict:.1%} of {len(pilot.right)} x {pilot.group} answers are "
        f"right, {pilot.lenient:.1%} wherever the answer stands; {pilot.informative:.1%} of groups "
        f"have right and wrong ones ({pilot.informative_if_alike:.1%} if all rows were alike); "
        f"{pilot.cut:.1%} of answers are cut off",
        flush=True,
    )
    if pilot.strict >= LEAST:
        return
    form = "; the answers are there and their form is not" if pilot.lenient >= LEAST else ""
    raise StudyError(
        f"{run.id} has next to nothing to reinforce: {pilot.strict:.1%} of answers are right, "
        f"under {LEAST:.0%}{form}; imitate first (--method sft, then --start ID), take easier rows "
        f"(--dataset, --select) or larger groups (--options num_generations={4 * pilot.group}); "
        "--anyway starts it all the same"
    )


def measure(run: Run, profile: Profile) -> Pilot:
    """Sample one group of answers to each of PROMPTS training rows, as the first step would.

    Takes nothing from the run's random streams: rows and samples have their own, of its seed.
    """
    import torch

    options = estimate.trainer_options(run, profile)
    group, limit = options["num_generations"], options["max_completion_length"]
    rows = study.rows_for(run, profile).shuffle(seed=run.seed)
    rows = rows.select(range(min(PROMPTS, len(rows))))
    start = files.run_folder(run.start, profile.name) / "adapter" if run.start else None
    model, tokenizer = models.load(
        profile, start=start, nf4=run.nf4 or profile.nf4, trainable=False
    )
    end_ids = ends.end_tokens(model.eval(), tokenizer)
    generator = torch.Generator(model.device).manual_seed(run.seed)
    prompts = rollout.encode(tokenizer, rows["prompt"])
    step = max(1, profile.n_batch // group)
    ids: list[list[int]] = []
    for first in range(0, len(prompts), step):
        batch = prompts[first : first + step]
        ids += rollout.sample_ids(
            model, batch, group, limit, end_ids, options["temperature"], generator
        )[0]
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the run's own process needs the memory
    return _graded(ids, group, rows, tokenizer, end_ids)


def _graded(
    ids: list[list[int]], group: int, rows: Any, tokenizer: Any, end_ids: tuple[int, ...]
) -> Pilot:
    """Return what the answers to rows are worth; `ids` has a row's answers side by side."""
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    answers = [answer for answer in rows["answer"] for _ in range(group)]
    kinds = [kind for kind in rows["kind"] for _ in range(group)]
    asked = [form for form in rows["asked"] for _ in range(group)]
    strict = grading.grade_many(texts, answers, kinds, asked)
    lenient = grading.grade_leniently(texts, answers, kinds, strict, asked)
    right = [verdict.correct for verdict in strict]
    return Pilot(
        group,
        [sum(right[first : first + group]) for first in range(0, len(right), group)],
        sum(verdict.correct for verdict in lenient) / len(lenient),
        sum(answer[-1] not in end_ids for answer in ids) / len(ids),
    )
