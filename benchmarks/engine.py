"""What is measured: each function a benchmark, each row of it a line of the table."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from benchmarks.settings import RUN_STEPS, THREADS
from hybridlib import ROOT, StudyError, models
from hybridlib.profiles import Profile
from hybridlib.registry import Registry

BENCHMARKS = Registry("benchmark")  # name -> (profile, repeat) -> rows


def row(
    what: str, stock: Sequence[float], ours: Sequence[float], unit: str = "s", **more: Any
) -> dict[str, Any]:
    """Return one line of the table: medians, their ratio, the number of repetitions."""
    medians = [median(values) if values else None for values in (stock, ours)]
    return {
        "what": what,
        "unit": unit,
        "stock": medians[0],
        "ours": medians[1],
        "n": len(ours),
        "ratio": medians[0] / medians[1] if all(medians) else None,
        "spread": [[min(values), max(values)] if values else None for values in (stock, ours)],
    } | more


def parts(name: str, timed: dict[str, dict[str, list[float]]]) -> list[dict]:
    """Return a row for the step and one for each part of it."""
    first = row(f"{name} step", timed["stock"]["step"], timed["ours"]["step"])
    rest = [
        row(f"{name} {part}", timed["stock"][part], timed["ours"][part], part=True)
        for part in timed["stock"]
        if part != "step"
    ]
    return [first, *rest]


def turns(
    ways: dict[str, Callable[[], Any]],
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Call each way `repeat` times, in turns; return the seconds of each."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            began = clock()
            way()
            spent[name].append(clock() - began)
    return spent


@BENCHMARKS.register
def grpo_step(profile: Profile, repeat: int) -> list[dict]:
    """16 prompts of 8 samples each, and a step as the profile takes it, on one thread."""
    import torch

    from benchmarks import steps

    def build(ours: bool, count: int, seed: int, **options: Any) -> Any:
        return steps.grpo(profile, ours, out, count, seed, **options)

    def build_large(ours: bool, count: int, seed: int) -> Any:
        return build(ours, count, seed, per_device_train_batch_size=128)

    with tempfile.TemporaryDirectory() as out:
        rows = parts("GRPO", steps.interleaved(build_large, repeat))
        torch.set_num_threads(1)
        timed = steps.interleaved(build, repeat)
        torch.set_num_threads(THREADS)
    size = profile.grpo["per_device_train_batch_size"]
    name = f"GRPO step of {size} samples, one thread"
    return [*rows, row(name, timed["stock"]["step"], timed["ours"]["step"])]


@BENCHMARKS.register
def sft_step(profile: Profile, repeat: int) -> list[dict]:
    """32 rows as they come, TRL's default, and rows of alike length, the profile's setting."""
    from benchmarks import steps

    def build(ours: bool, count: int, seed: int, **options: Any) -> Any:
        return steps.sft(profile, ours, out, count, seed, **options)

    def build_mixed(ours: bool, count: int, seed: int) -> Any:
        return build(ours, count, seed, train_sampling_strategy="random")

    with tempfile.TemporaryDirectory() as out:
        rows = parts("SFT", steps.interleaved(build_mixed, 5 * repeat))
        alike = steps.interleaved(build, 5 * repeat)
    name = "SFT step, rows of alike length"
    return [*rows, row(name, alike["stock"]["step"], alike["ours"]["step"])]


@BENCHMARKS.register
def evaluation(profile: Profile, repeat: int) -> list[dict]:
    """600 rows, 5 samples each, against `generate` on rows in their order and sorted by length."""
    from benchmarks import steps
    from hybridlib import data
    from hybridlib.engine import rollout

    model, tokenizer = models.load(profile)
    rows = [p for name in profile.datasets for p in data.load(name, "train", 200)["prompt"]]
    lengths = [len(ids) for ids in rollout.encode(tokenizer, rows)]
    by_length = [rows[i] for i in sorted(range(len(rows)), key=lengths.__getitem__)]
    tokens = profile.max_completion_tokens
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: rollout.sample(model, tokenizer, rows, 5, tokens, batch=256),
        "plain": lambda: steps.generate(model, tokenizer, rows, 5, tokens, 256),
        "sorted": lambda: steps.generate(model, tokenizer, by_length, 5, tokens, 256),
    }
    spent = turns(ways, repeat)
    return [
        row("evaluation of 600 rows x 5", spent["plain"], spent["ours"]),
        row("the same, stock sorted by length", spent["sorted"], spent["ours"]),
    ]


@BENCHMARKS.register
def memory(profile: Profile, repeat: int) -> list[dict]:
    """Largest resident memory of a process that takes GRPO steps."""
    peaks: dict[str, list[float]] = {"stock": [], "ours": []}
    for _ in range(repeat):
        for name, values in peaks.items():
            values.append(_in_process("peak", name == "ours"))
    return [row("GRPO memory", peaks["stock"], peaks["ours"], "GB")]


@BENCHMARKS.register
def grid(profile: Profile, repeat: int) -> list[dict]:
    """12 short runs, SFT and GRPO: the study's workers against a plain loop of processes."""

    def loop() -> None:
        for number in range(12):
            _in_process("one", number)

    spent = turns({"stock": loop, "ours": lambda: _in_process("pool", 12)}, repeat)
    return [row(f"grid of 12 runs of {RUN_STEPS} steps", spent["stock"], spent["ours"])]


@BENCHMARKS.register
def growth(profile: Profile, repeat: int) -> list[dict]:
    """How ours grows: samples a prompt, rows, answer length, width of the model, runs of a grid."""
    rows = _growth_of_steps(profile, repeat) + _growth_of_sampling(profile, repeat)
    for count in (3, 6, 12):
        way = partial(_in_process, "pool", count)
        spent = turns({"ours": way}, max(1, repeat // 2))
        rows.append(row("grid", [], spent["ours"], size=count, grows="runs"))
    return rows


def _growth_of_steps(profile: Profile, repeat: int) -> list[dict]:
    from benchmarks import steps

    rows = []
    with tempfile.TemporaryDirectory() as out:
        for n in (4, 8, 16):
            options = dict(per_device_train_batch_size=16 * n, num_generations=n)
            timed = steps.seconds(steps.grpo(profile, True, out, repeat + 1, **options))
            rows.append(row("GRPO step", [], timed["step"], size=n, grows="samples a prompt"))
        for factor in (1, 2, 4):
            wide = steps.wider(profile, factor, out)
            timed = steps.seconds(steps.sft(wide, True, out, repeat + 1))
            rows.append(row("SFT step", [], timed["step"], size=factor, grows="model width"))
    return rows


def _growth_of_sampling(profile: Profile, repeat: int) -> list[dict]:
    from hybridlib import data
    from hybridlib.engine import rollout

    rows = []
    model, tokenizer = models.load(profile)
    prompts = data.load(profile.datasets[0], "train", 400)["prompt"]
    tokens = profile.max_completion_tokens
    for count in (100, 200, 400):
        way = partial(rollout.sample, model, tokenizer, prompts[:count], 5, tokens)
        spent = turns({"ours": way}, repeat)
        rows.append(row("evaluation", [], spent["ours"], size=count, grows="rows"))
    ids = rollout.encode(tokenizer, prompts[:32])
    for length in (24, 48, 96):  # no end token: each answer is as long as it may be
        way = partial(rollout.sample_ids, model, ids, 8, length, ends=[-1])
        spent = turns({"ours": way}, repeat)
        rows.append(row("sampling", [], spent["ours"], size=length, grows="tokens an answer"))
    return rows


@BENCHMARKS.register
def curves(profile: Profile, repeat: int) -> list[dict]:
    """Reward by step over `repeat` seeds: does the faster engine learn the same?"""
    from benchmarks import steps

    rows = []
    with tempfile.TemporaryDirectory() as out:
        for seed in range(repeat):
            for name in ("stock", "ours"):
                trainer = steps.grpo(profile, name == "ours", out, 60, seed)
                trainer.train()
                logged = [e["reward"] for e in trainer.state.log_history if "reward" in e]
                rewards = [round(reward, 4) for reward in logged]
                rows.append({"what": "curve", "engine": name, "seed": seed, "reward": rewards})
    return rows


@BENCHMARKS.register
def together(profile: Profile, repeat: int) -> list[dict]:
    """Would runs that share the base gain from one process? One decoding step of K runs, batched.

    Each run has its own folded weights, so that a batch over runs is a batched product; what it
    could save is the fixed cost of many small operations. On one thread, as a worker has.
    """
    import torch
    from torch.nn.functional import rms_norm

    torch.set_num_threads(1)
    config = models.load(profile)[0].config
    narrow, wide, size = config.hidden_size, config.intermediate_size, 48
    shapes = [(narrow, 2 * narrow), (narrow, narrow), (narrow, 2 * wide), (wide, narrow)]
    rows = []
    for runs in (1, 4):
        weights = [torch.randn(runs, *shape) for shape in shapes * config.num_hidden_layers]
        inputs = {width: torch.randn(runs, size, width) for width in (narrow, wide)}

        def apart(weights: list = weights, inputs: dict = inputs) -> None:
            for _ in range(100):
                for run in range(len(weights[0])):
                    for weight in weights:
                        rms_norm(inputs[weight.shape[1]][run] @ weight[run], weight.shape[2:])

        def batched(weights: list = weights, inputs: dict = inputs) -> None:
            for _ in range(100):
                for weight in weights:
                    rms_norm(torch.bmm(inputs[weight.shape[1]], weight), weight.shape[2:])

        ways = {"apart": apart, "batched": batched}
        turns(ways, 1)  # warming up
        spent = turns(ways, repeat)
        name = "100 decoding steps, runs apart or batched"
        rows.append(row(name, spent["apart"], spent["batched"], size=runs, grows="runs in a batch"))
    torch.set_num_threads(THREADS)
    return rows


@BENCHMARKS.register
def floor(profile: Profile, repeat: int) -> list[dict]:
    """Operations that steps of 128 samples cannot avoid, and the best this machine does."""
    from benchmarks import steps

    limits = machine_limits(repeat)
    with tempfile.TemporaryDirectory() as out, counted_passes() as passes:
        trainer = steps.grpo(profile, True, out, repeat, per_device_train_batch_size=128)
        trainer.train()
    return [shortest_step(trainer, passes, 128, *limits)]


def shortest_step(
    trainer: Any,
    passes: Sequence[tuple[int, int, int]],
    samples: int,
    peak: float,
    bandwidth: float,
) -> dict[str, Any]:
    """Return what a mean step of a GRPO training had to do, and the seconds that it takes at best.

    Args:
        trainer: After its training.
        passes: Of that training, as `counted_passes` counts them.
        samples: Of a step, 8 a prompt.
        peak, bandwidth: Operations and bytes a second.
    """
    logged = [e for e in trainer.state.log_history if "reward" in e]
    answers = sum(e["completions/mean_length"] * samples for e in logged) / len(logged)
    longest = sum(e["completions/max_length"] for e in logged) / len(logged)
    prefill, loss_pass = (_mean_columns(part) for part in (passes[::2], passes[1::2]))
    model = trainer.model.get_base_model()
    config = model.config
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for n, p in model.named_parameters() if "lora" not in n) - head
    factors = sum(p.numel() for n, p in model.named_parameters() if "lora" in n)
    size = config.hidden_size // config.num_attention_heads
    width, layers = config.num_attention_heads * size, config.num_hidden_layers
    # Pairs of tokens: an answer sees its prompt and itself.
    to_prompt, to_answer = answers * prefill[0] * 8 / samples, answers**2 / samples / 2
    sampling = 2 * body * (prefill[0] + answers) + 2 * head * answers
    sampling += 4 * width * layers * (prefill[2] + to_prompt + to_answer)
    loss = 2 * body * loss_pass[0] + 2 * head * loss_pass[1] + 4 * width * layers * loss_pass[2]
    backward = loss + 4 * width * layers * loss_pass[2] + 6 * factors * loss_pass[0]
    # Keys and values in float32, those of a prompt shared by its 8 samples.
    cached = 8 * config.num_key_value_heads * size * layers * (to_prompt / 8 + to_answer)
    total = sampling + loss + backward
    return {
        "what": "floor",
        "prompt_tokens": prefill[0],
        "answer_tokens": answers,
        "taught_tokens": loss_pass[0],
        "longest_answer": longest,
        "operations": total,
        "bytes": cached,
        "peak_flops": peak,
        "bandwidth": bandwidth,
        "seconds": total / peak + cached / bandwidth,
    }


def machine_limits(
    repeat: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return operations and bytes per second in one large matrix product and one large copy."""
    import torch

    square, block = torch.randn(1024, 1024), torch.randn(16 * 2**20)
    ways = {"product": lambda: [square @ square for _ in range(20)], "copy": block.clone}
    spent = turns(ways, repeat + 1, clock)
    return 20 * 2 * 1024**3 / min(spent["product"]), 2 * block.numel() * 4 / min(spent["copy"])


@contextmanager
def counted_passes() -> Iterator[list[tuple[int, int, int]]]:
    """Count the decoder's passes: the tokens, answer tokens and attending pairs of each.

    In a GRPO training they alternate: the prefill of sampling, then the loss.
    """
    from unittest.mock import patch

    from hybridlib.engine import decoder

    passes: list[tuple[int, int, int]] = []
    build = decoder.PrefixBatch

    def counted(*args: Any) -> Any:
        batch = build(*args)
        pairs = int(batch.positions.sum()) + len(batch.tokens)
        passes.append((len(batch.tokens), len(batch.targets), pairs))
        return batch

    with (
        patch("hybridlib.engine.decoder.PrefixBatch", counted),
        patch("hybridlib.engine.rollout.PrefixBatch", counted),
    ):
        yield passes


def _mean_columns(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _in_process(task: str, value: Any) -> float:
    """Run a task of `benchmarks.alone` in a fresh process; return the number that it prints last.

    Raises:
        StudyError: It failed.
    """
    code = f"from benchmarks import alone; print(alone.{task}({value!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise StudyError(f"{task}({value}) failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.strip().splitlines()[-1])
