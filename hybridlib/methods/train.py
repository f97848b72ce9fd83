"""How does an adapter learn? SFT and GRPO side by side, so that the reader sees what differs."""

import ast
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, adapters, models, reward_shares, rewards, tracking, weights
from hybridlib.data.audit import audit
from hybridlib.engine import ends, operations, rollout, trainers
from hybridlib.methods.checkpoints import Checkpoints
from hybridlib.methods.registry import METHODS, Job, Trained
from hybridlib.objectives import OBJECTIVES
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    from datasets import Dataset

CURVE_METRICS = (
    "loss",
    "reward",
    "reward_std",
    "entropy",
    "kl",
    "completions/mean_length",
    "mean_token_accuracy",
)
CURVE_POINTS = 30  # at most, in a record
POSITIVE = (  # options that TRL takes below 1, for something else or for an endless training
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "max_completion_length",
    "num_generations",
    "steps_per_generation",
    "generation_batch_size",
    "temperature",
)
NOT_NEGATIVE = ("beta", "epsilon", "warmup_steps", "weight_decay", "max_grad_norm", "logging_steps")
UNSLOTH_DECIDES = frozenset(  # how a step is computed, not what it computes
    (
        "gradient_checkpointing_kwargs",
        "padding_free",
        "dataset_num_proc",
        "dataloader_pin_memory",
        "torch_empty_cache_steps",
    )
)


@METHODS.register(trainer="", needs=(), words="base", backends=("hf", "unsloth"))
def base(job: Job) -> Trained:
    """Train nothing: the bar that every arm must pass."""
    return Trained()


@METHODS.register(
    trainer="sft", needs=("rows", "solutions"), words="SFT", backends=("hf", "unsloth")
)
def sft(job: Job) -> Trained:
    """Imitate the completions: minimise an objective of their tokens, the prompt masked.

    Raises:
        StudyError: rows that `audit` refuses, options that TRL does not have, or an objective
            other than the likelihood under Unsloth.
    """
    audit(job.rows)
    model, tokenizer = load_model(job)
    from trl import SFTConfig, SFTTrainer

    more: dict[str, Any] = {}
    if job.run.backend == "hf":
        trainer_class = trainers.sft(SFTTrainer, OBJECTIVES[job.run.objective])
    elif job.run.objective == "nll":
        trainer_class = SFTTrainer
        # Its fused cross-entropy is behind this name, and its trainer does not count tokens.
        more = {"loss_type": "nll", "include_num_input_tokens_seen": "non_padding"}
    else:
        raise StudyError(f"objective {job.run.objective!r} needs the backend hf")
    trainer = trainer_class(
        model=model,
        args=trl_config(
            SFTConfig,
            job.run,
            job.profile,
            job.out,
            max_length=None,
            completion_only_loss=True,
            **more,
        ),
        train_dataset=demonstrations(job.rows, model, tokenizer),
        processing_class=tokenizer,
    )
    return fit(trainer, job)


@METHODS.register(trainer="grpo", needs=("rows",), words="GRPO", backends=("hf", "unsloth"))
def grpo(job: Job) -> Trained:
    """Reinforce what earns reward: group-relative policy optimisation (arXiv:2402.03300).

    Raises:
        StudyError: rows that `audit` refuses, options that TRL does not have, or a reward that
            cannot be computed for these rows.
    """
    audit(job.rows)
    model, tokenizer = load_model(job)
    trainer = grpo_trainer(job, model, tokenizer)
    trained = fit(trainer, job)
    return trained._replace(facts=grpo_facts(trainer, job.run))


# ---------------------------------------------------------------- shared by the methods


def load_model(job: Job) -> tuple[Any, Any]:
    """Load the model that a job trains, and its tokenizer, under the run's seed.

    Sets the process's threads and random seeds: a fresh adapter is drawn from them.
    """
    models.import_backend(job.run.backend)
    import torch
    from transformers import set_seed

    torch.set_num_threads(job.profile.threads)
    set_seed(job.run.seed)
    return models.load(
        job.profile, job.run.adapter, job.run.rank, job.start, job.nf4, job.run.backend
    )


def demonstrations(rows: "Dataset", model: Any, tokenizer: Any) -> "Dataset":
    """Return the prompts and completions of rows as SFT imitates them.

    Each completion ends in an end token; where the chat template writes none, the completion does.
    Each begins where sampling begins, behind the tokens of the prompt. Where its first characters
    would merge with the prompt's last (a space before a word), TRL would teach a token that no
    sample can begin with: there, both are returned as tokens, made apart.
    """
    from datasets import Dataset

    pairs = rows.select_columns(["prompt", "completion"])
    end = ends.closing(tokenizer, ends.end_tokens(model, tokenizer))
    if end:
        ended = [[_closed(turns[-1], end)] for turns in rows["completion"]]
        pairs = pairs.remove_columns("completion").add_column("completion", ended)
    prompts = rollout.encode(tokenizer, pairs["prompt"])
    turns = [[*row["prompt"], *row["completion"]] for row in pairs]
    texts = tokenizer.apply_chat_template(turns, tokenize=False)
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if all(ids[: len(prompt)] == prompt for ids, prompt in zip(whole, prompts, strict=True)):
        return pairs
    answers = [
        _from_answer(text, row["completion"][-1]["content"])
        for text, row in zip(texts, pairs, strict=True)
    ]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    apart = list(zip(prompts, answer_ids, strict=True))
    return Dataset.from_dict(
        {
            "input_ids": [prompt + answer for prompt, answer in apart],
            "completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in apart],
        }
    )


def _closed(turn: dict[str, str], end: str) -> dict[str, str]:
    return turn | {"content": turn["content"] + end}


def _from_answer(text: str, answer: str) -> str:
    """Return a conversation from its last answer on; a template may have stripped that."""
    for written in (answer, answer.strip()):
        before, found, behind = text.rpartition(written)
        if found:
            return written + behind
    raise StudyError(f"the chat template changes an answer, which cannot be taught: {answer!r}")


def options(run: Run, profile: Profile, out: Path) -> dict[str, Any]:
    """Return the options of a run's trainer that differ from TRL's defaults.

    Later ones win: the study's, the profile's, the run's steps and learning rate, and last
    `run.options`. Without a GPU, the profile's options for bf16, vLLM and 8-bit optimizers are
    dropped.

    Raises:
        StudyError: one of POSITIVE is not, or one of NOT_NEGATIVE is.
    """
    trainer = METHODS[run.method].trainer
    chosen: dict[str, Any] = dict(
        output_dir=str(out),
        seed=run.seed,
        data_seed=run.seed,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        use_cpu=not _has_gpu(),
        gradient_checkpointing=_has_gpu(),
        bf16=False,
        save_total_limit=1,
    )
    chosen |= profile.sft if trainer == "sft" else profile.grpo
    if run.steps:
        chosen["max_steps"] = run.steps
    if run.learning_rate:
        chosen["learning_rate"] = run.learning_rate
    if not _has_gpu():
        chosen["bf16"] = False
        chosen = {name: value for name, value in chosen.items() if "vllm" not in name}
        if "8bit" in str(chosen.get("optim")):
            chosen.pop("optim")
    if trainer == "grpo":
        chosen["max_completion_length"] = profile.max_completion_tokens
        chosen["reward_weights"] = list(run.reward_weights) or None
    for option in run.options:
        name, _, value = option.partition("=")
        try:
            chosen[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            chosen[name] = value
    for name in POSITIVE:
        value = chosen.get(name, 1)
        if not (isinstance(value, int | float) and value > 0):
            raise StudyError(f"{name}={value} of {run.id} is no number above 0")
    for name in NOT_NEGATIVE:
        value = chosen.get(name, 0)
        if not (isinstance(value, int | float) and value >= 0):
            raise StudyError(f"{name}={value} of {run.id} is no number from 0 up")
    return chosen


def trl_config(config: type, run: Run, profile: Profile, out: Path, **more: Any) -> Any:
    """Return TRL's config of a run, which has the same values under every backend.

    Unsloth's configs have defaults of their own (two micro-batches a step, weight decay, another
    optimizer) and overrule some options: what TRL would make of the options is set over it.

    Args:
        config: trl.SFTConfig or trl.GRPOConfig, or what Unsloth has put in their place.
        more: options that the method itself decides.
    Raises:
        StudyError: names an option that TRL does not have, or a value that it refuses.
    """
    chosen = options(run, profile, out) | more
    stock = [c for c in config.__mro__ if c.__name__ == config.__name__.removeprefix("Unsloth")][-1]
    try:
        args = config(**chosen)
        if stock is config:
            return args
        meant = stock(**chosen)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{config.__name__} refuses the options of {run.id}: {error}") from None
    for name in {spec.name for spec in fields(stock)} - UNSLOTH_DECIDES:
        if getattr(args, name) != getattr(meant, name):
            setattr(args, name, getattr(meant, name))
    return args


def grpo_trainer(
    job: Job, model: Any, tokenizer: Any, wrap: Callable[[type], type] = lambda trainer: trainer
) -> Any:
    """Return the study's GRPO trainer of a job: its sampler, its forward pass, its rewards.

    Rewards get the columns of the rows, the worked solution as `gold`.

    Args:
        wrap: GRPO trainer class -> subclass of it; what a method changes about the training.
    """
    from trl import GRPOConfig, GRPOTrainer

    run = job.run
    check_batch(run, job.profile, len(job.rows))
    args = trl_config(GRPOConfig, run, job.profile, job.out)
    if args.use_vllm:  # which reads the files of the model alone
        stops = {"stop_token_ids": list(ends.end_tokens(model, tokenizer))}
        args.generation_kwargs = stops | (args.generation_kwargs or {})
    study_sampler = run.backend == "hf" and not args.use_vllm
    trainer_class = wrap(trainers.grpo(GRPOTrainer) if study_sampler else GRPOTrainer)
    if len(run.rewards) > 1:
        trainer_class = reward_shares.logging_shares(trainer_class)
    gold = [completion[-1]["content"] for completion in job.rows["completion"]]
    return trainer_class(
        model=model,
        args=args,
        reward_funcs=rewards.bind(run.rewards, model, tokenizer, args.max_completion_length),
        # TRL keeps a column named completion from the rewards.
        train_dataset=job.rows.remove_columns(["completion"]).add_column("gold", gold),
        processing_class=tokenizer,
        rollout_func=sampler(run.seed) if study_sampler else None,
    )


def check_batch(run: Run, profile: Profile, n_rows: float) -> None:
    """Check that GRPO has the prompts of one batch; TRL would train no step without them.

    Raises:
        StudyError: there are fewer rows; says how many are needed.
    """
    chosen = options(run, profile, Path())
    steps = chosen.get("steps_per_generation") or chosen.get("gradient_accumulation_steps", 1)
    size = chosen.get("generation_batch_size") or steps * chosen.get(
        "per_device_train_batch_size", 8
    )
    prompts = size // chosen.get("num_generations", 8)
    if n_rows < prompts:
        raise StudyError(
            f"{n_rows} training rows are fewer than the {prompts} prompts of one GRPO batch of "
            f"{run.id}; give more rows, or a smaller --options per_device_train_batch_size=N"
        )


def grpo_facts(trainer: Any, run: Run) -> dict[str, Any]:
    """Return what a record keeps of a GRPO training's log: see `reward_shares.facts`."""
    args = trainer.args
    shares = dict(zip(run.rewards, run.reward_weights or [1.0] * len(run.rewards), strict=True))
    micro_batches = trainer.state.global_step * args.gradient_accumulation_steps
    # A generated batch is used num_iterations times, and the last one may be used in part.
    batches = -(-micro_batches // (args.steps_per_generation * args.num_iterations))
    return reward_shares.facts(
        trainer.state.log_history, shares, batches * args.generation_batch_size
    )


def sampler(seed: int) -> Callable[..., dict[str, list]]:
    """Return TRL's `rollout_func`: the study's sampler, with its own random stream for each call.

    Every call draws from (seed, optimizer step, call within the step), so that a run that goes on
    from a checkpoint draws what it would have drawn. The hook returns prompt_ids, completion_ids
    and logprobs, lists with an entry per sample, and raises StudyError for sampling options other
    than the temperature.
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
        prompt_ids = rollout.encode(tokenizer, prompts[::group])
        completion_ids, log_probs = rollout.sample_ids(
            model,
            prompt_ids,
            group,
            trainer.max_completion_length,
            ends.end_tokens(model, tokenizer),
            trainer.temperature,
            torch.Generator(model.device).manual_seed(stream),
        )
        return {
            "prompt_ids": [ids for ids in prompt_ids for _ in range(group)],
            "completion_ids": completion_ids,
            "logprobs": log_probs,
        }

    return sample


def fit(trainer: Any, job: Job) -> Trained:
    """Train, from the last checkpoint if there is one; save the adapter into the job's folder.

    Returns:
        The adapter, the thinned curve, which weights learnt, the points of `checkpoints`, and the
        cost: train_seconds, tokens, operations, trainable (parameters), peak_gb (GiB, of the GPU
        where there is one, else of this process), and checkpoint_seconds of training until each
        point.
    """
    import torch

    out = job.out
    with operations.counting(trainer.model) as meter:
        observer = Checkpoints(job, trainer, meter)
        tracking.attach(trainer, job.run, job.profile)
        began = time.perf_counter()
        trainer.train(resume_from_checkpoint=last_checkpoint(out))
        seconds = time.perf_counter() - began
    adapter = out / "adapter"
    trainer.model.save_pretrained(adapter)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    gpu_gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0
    cost = {
        "train_seconds": round(seconds, 2),
        "tokens": int(max(_tokens_so_far(entry) for entry in logged)),
        "operations": meter.operations(observer.parameters),
        "trainable": observer.parameters,
        "peak_gb": round(gpu_gib or peak_memory_gib(), 3),
    }
    if observer.points:
        cost["checkpoint_seconds"] = observer.seconds
    learnt = adapters.learning(trainer.model)
    return Trained(adapter, thinned(logged), cost, weights=learnt, checkpoints=observer.points)


def last_checkpoint(out: Path) -> str | None:
    """Return the folder of a training's last whole checkpoint, None where there is none.

    Removes those that were cut as they were written, and says so: the one before is still there.
    """
    folders = [folder for folder in out.glob("checkpoint-*") if folder.name[11:].isdecimal()]
    for folder in sorted(folders, key=lambda folder: int(folder.name[11:]), reverse=True):
        try:
            weights.check_checkpoint(folder)
        except StudyError as error:
            print(f"{error}; going on from the checkpoint before it, or anew", flush=True)
            shutil.rmtree(folder)
        else:
            return str(folder)
    return None


def _tokens_so_far(entry: dict[str, Any]) -> float:
    """Return the tokens that a logged step has counted; Unsloth leaves TRL's own count out."""
    return entry.get("num_tokens") or entry.get("num_input_tokens_seen", 0)


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB.

    Read from /proc where there is one, because `ru_maxrss` of a child process starts at the
    parent's.
    """
    import resource

    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def thinned(logged: Sequence[dict[str, Any]], points: int = CURVE_POINTS) -> list[dict[str, float]]:
    """Return the curve in at most `points` points: means over windows of consecutive steps.

    Each point carries the last step of its window, and the metrics that this step logged; a step of
    the window that lacks one of them counts as 0 there. What is logged as None, as TRL does where a
    reward applied to no sample of a step, is left out of the mean, and out of a point where no step
    of its window has more.
    """
    window = -(-len(logged) // points) or 1
    curve = []
    for first in range(0, len(logged), window):
        part = logged[first : first + window]
        metrics = [name for name in part[-1] if _on_the_curve(name)]
        values = {name: [entry.get(name, 0) for entry in part] for name in metrics}
        known = {name: [v for v in found if v is not None] for name, found in values.items()}
        rounded = {
            name: round(sum(map(float, found)) / len(found), 4)
            for name, found in known.items()
            if found
        }
        curve.append({"step": part[-1]["step"]} | rounded)
    return curve


def _on_the_curve(metric: str) -> bool:
    return metric in CURVE_METRICS or (metric.startswith("rewards/") and "/mean" in metric)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
