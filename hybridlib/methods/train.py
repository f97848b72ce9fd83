"""How does an adapter learn? SFT and GRPO side by side, so that the reader sees what differs."""

import ast
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlib import StudyError, models, reward_shares, rewards
from hybridlib.data.audit import audit
from hybridlib.engine import rollout, trainers
from hybridlib.objectives import OBJECTIVES
from hybridlib.profiles import Profile
from hybridlib.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

    from hybridlib.study import Run

CURVE = (
    "loss",
    "reward",
    "reward_std",
    "entropy",
    "kl",
    "completions/mean_length",
    "mean_token_accuracy",
)


METHODS = Registry("training method", "rows")
"""Rows: is it trained on some? Then fn(run, profile, rows, out, start), else fn(run, profile, out,
adapters); both return `Trained`."""


class Trained(NamedTuple):
    """What training leaves behind: the adapter's folder, the curve by logged step, cost, facts."""

    adapter: Path | None = None  # None: the base as it is
    curve: list[dict[str, float]] = []
    cost: dict[str, float] = {}
    facts: dict[str, Any] = {}  # of GRPO: `reward_shares.facts`; of a merge: `merge.combine`'s
    model: Any = None  # and its tokenizer, where no single adapter says what was made


def options(run: "Run", profile: Profile, out: Path) -> dict[str, Any]:
    """Every option of a run's trainer that is not TRL's default: the profile's and the run's."""
    shared = dict(
        output_dir=str(out), seed=run.seed, data_seed=run.seed, report_to="none", disable_tqdm=True,
        logging_steps=1, use_cpu=not _gpu(), gradient_checkpointing=_gpu(), bf16=False,
        save_total_limit=1,
    )  # fmt: skip
    own = profile.sft if run.method == "sft" else profile.grpo
    chosen: dict[str, Any] = shared | own
    if run.steps:
        chosen["max_steps"] = run.steps
    if run.learning_rate:
        chosen["learning_rate"] = run.learning_rate
    if not _gpu():  # what only a GPU has
        chosen |= {"bf16": False}
        chosen = {k: v for k, v in chosen.items() if "vllm" not in k}
        if "8bit" in str(chosen.get("optim")):
            chosen.pop("optim")
    if run.method == "grpo":
        chosen["max_completion_length"] = profile.max_completion_tokens
        chosen["reward_weights"] = list(run.reward_weights) or None
    for option in run.options:
        name, _, value = option.partition("=")
        try:
            chosen[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            chosen[name] = value
    return chosen


def _config(kind: type, run: "Run", profile: Profile, out: Path, **more: Any) -> Any:
    """TRL's config of a run; StudyError names an option that TRL does not have."""
    try:
        return kind(**options(run, profile, out), **more)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{kind.__name__} refuses the options of {run.id}: {error}") from None


@METHODS.register(rows=False)
def base(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """Nothing is trained: the bar that every arm must pass."""
    return Trained()


@METHODS.register(rows=True)
def sft(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """Imitate the completions: negative log-likelihood of their tokens, the prompt masked.

    Raises StudyError for rows that `audit` refuses, as `grpo` does.
    """
    audit(rows)
    model, tokenizer = _begin(run, profile, start)
    from trl import SFTConfig, SFTTrainer

    if run.backend != "hf" and run.objective != "nll":
        raise StudyError(f"objective {run.objective!r} needs the backend hf")
    plain = run.backend != "hf"
    kind = SFTTrainer if plain else trainers.sft(SFTTrainer, OBJECTIVES[run.objective])
    trainer = kind(
        model=model,
        args=_config(SFTConfig, run, profile, out, max_length=None, completion_only_loss=True),
        train_dataset=rows.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
    )
    return _train(trainer, out)


@METHODS.register(rows=True)
def grpo(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """Reinforce what earns reward: group-relative policy optimisation (arXiv:2402.03300).

    Rewards get the columns of the rows, the worked solution as `gold`.
    """
    audit(rows)
    model, tokenizer = _begin(run, profile, start)
    from trl import GRPOConfig, GRPOTrainer

    args = _config(GRPOConfig, run, profile, out)
    own_sampler = run.backend == "hf" and not args.use_vllm
    kind = trainers.grpo(GRPOTrainer) if own_sampler else GRPOTrainer
    gold = [completion[-1]["content"] for completion in rows["completion"]]
    trainer = (reward_shares.watched(kind) if len(run.rewards) > 1 else kind)(
        model=model,
        args=args,
        reward_funcs=rewards.bound(run.rewards, model, tokenizer, args.max_completion_length),
        # TRL keeps a column named completion from the rewards.
        train_dataset=rows.remove_columns(["completion"]).add_column("gold", gold),
        processing_class=tokenizer,
        rollout_func=sampler(run.seed) if own_sampler else None,
    )
    trained = _train(trainer, out)
    weights = dict(zip(run.rewards, run.reward_weights or [1.0] * len(run.rewards), strict=True))
    batches = -(-trainer.state.global_step * args.gradient_accumulation_steps
                // (args.steps_per_generation * args.num_iterations))  # fmt: skip
    samples = batches * args.generation_batch_size
    return trained._replace(facts=reward_shares.facts(trainer.state.log_history, weights, samples))


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _begin(run: "Run", profile: Profile, start: Path | None) -> tuple[Any, Any]:
    models.use(run.backend)
    import torch
    from transformers import set_seed

    torch.set_num_threads(profile.threads)
    set_seed(run.seed)  # the adapter's initialisation, too
    return models.load(profile, run.adapter, run.rank, start, run.nf4 or profile.nf4, run.backend)


def sampler(seed: int) -> Any:
    """TRL's hook for sampling, filled by the study's one sampler.

    Every call draws from (seed, optimizer step, call within the step), so that a run that goes on
    from a checkpoint draws what it would have drawn.
    """
    import torch

    calls: dict[int, int] = {}

    def sample(prompts: list[Any], trainer: Any) -> dict[str, list]:
        args, group = trainer.args, trainer.num_generations
        if args.top_p != 1 or args.top_k or args.min_p or args.repetition_penalty != 1:
            raise StudyError("sampling has a temperature only: leave out top_p, top_k, min_p, ...")
        model, step = trainer.accelerator.unwrap_model(trainer.model), trainer.state.global_step
        calls[step] = calls.get(step, -1) + 1
        stream = ((seed * 1_000_003 + step) * 1_000_003 + calls[step]) % 2**63
        tokenizer = trainer.processing_class
        ids = rollout.encode(tokenizer, prompts[::group])
        tokens, logps = rollout.sample_ids(
            model, ids, group, trainer.max_completion_length, tokenizer.eos_token_id,
            trainer.temperature, torch.Generator(model.device).manual_seed(stream),
        )  # fmt: skip
        return {
            "prompt_ids": [i for i in ids for _ in range(group)],
            "completion_ids": tokens,
            "logprobs": logps,
        }

    return sample


def _train(trainer: Any, out: Path) -> Trained:
    """Train, from the last checkpoint if there is one; save the adapter; keep the curve."""
    import torch
    from transformers.trainer_utils import get_last_checkpoint

    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.is_dir() else None)
    seconds = time.perf_counter() - began
    adapter = out / "adapter"
    trainer.model.save_pretrained(adapter)
    logged = [e for e in trainer.state.log_history if "loss" in e]
    curve = _thinned(logged)
    gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0
    return Trained(
        adapter,
        curve,
        {
            "train_seconds": round(seconds, 2),
            "tokens": int(max(e.get("num_tokens", 0) for e in logged)),
            "trainable": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            "peak_gb": round(gpu or peak_gb(), 3),
        },
    )


def peak_gb() -> float:
    """Largest resident memory of this process so far, in GiB.

    From /proc where there is one: `ru_maxrss` of a child starts at that of its parent.
    """
    import resource

    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _thinned(logged: list[dict[str, Any]], points: int = 30) -> list[dict[str, float]]:
    """The curve in at most `points` points, each the mean of a window, named by its last step."""
    window = -(-len(logged) // points) or 1
    curve = []
    for start in range(0, len(logged), window):
        part = logged[start : start + window]
        kept = [k for k in part[-1] if k in CURVE or k.startswith("rewards/") and "/mean" in k]
        means = {k: sum(float(e.get(k, 0)) for e in part) / len(part) for k in kept}
        curve.append({"step": part[-1]["step"]} | {k: round(v, 4) for k, v in means.items()})
    return curve


from hybridlib.methods import composed, mixed  # noqa: E402, F401  (they register their methods)
