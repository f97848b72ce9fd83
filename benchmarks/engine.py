"""What is measured: each function a benchmark, each row of it a line of the table."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from hybridlib import ROOT, StudyError
from hybridlib.profiles import Profile
from hybridlib.registry import Registry

BENCHMARKS = Registry("benchmark")  # name -> (profile, repeat) -> rows
THREADS = os.cpu_count() or 1


def row(what: str, stock: list[float], ours: list[float], unit: str = "s", **more: Any) -> dict:
    """One line of the table: medians, their ratio, the number of repetitions."""
    a, b = (median(x) if x else None for x in (stock, ours))
    return {
        "what": what, "unit": unit, "stock": a, "ours": b, "n": len(ours),
        "ratio": a / b if a and b else None,
        "spread": [[min(x), max(x)] if x else None for x in (stock, ours)],
    } | more  # fmt: skip


def parts(name: str, timed: dict[str, dict[str, list[float]]]) -> list[dict]:
    """A row for the step and one for each part that stock or ours has."""
    first = row(f"{name} step", timed["stock"]["step"], timed["ours"]["step"])
    rest = [
        row(f"{name} {part}", timed["stock"][part], timed["ours"][part], part=True)
        for part in timed["stock"]
        if part != "step"
    ]
    return [first, *rest]


@BENCHMARKS.register
def grpo_step(profile: Profile, repeat: int) -> list[dict]:
    """16 prompts of 8 samples each."""
    from benchmarks import steps

    with tempfile.TemporaryDirectory() as out:
        return parts("GRPO", steps.interleaved(
            lambda lean, n: steps.grpo(profile, lean, out, n, per_device_train_batch_size=128),
            repeat,
        ))  # fmt: skip


@BENCHMARKS.register
def sft_step(profile: Profile, repeat: int) -> list[dict]:
    """32 rows as they come."""
    from benchmarks import steps

    options = dict(per_device_train_batch_size=32, train_sampling_strategy="random")
    with tempfile.TemporaryDirectory() as out:
        return parts("SFT", steps.interleaved(
            lambda lean, n: steps.sft(profile, lean, out, n, **options), 5 * repeat
        ))  # fmt: skip


@BENCHMARKS.register
def evaluation(profile: Profile, repeat: int) -> list[dict]:
    """600 rows, 5 samples each, against `generate` on rows in their order and sorted by length."""
    from benchmarks import steps
    from hybridlib import data, models, rollout

    model, tokenizer = models.load(profile)
    rows = [r for n in profile.datasets for r in data.load(n, "train", 200)["prompt"]]
    rows = [rows[i * 200 + j] for j in range(200) for i in range(3)]  # families in turn
    size = dict(zip(range(600), map(len, rollout.encode(tokenizer, rows)), strict=True))
    even = [rows[i] for i in sorted(size, key=size.get)]
    ask = (model, tokenizer)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: rollout.sample(*ask, rows, 5, profile.max_completion_tokens),
        "plain": lambda: steps.generate(*ask, rows, 5, profile.max_completion_tokens, 256),
        "sorted": lambda: steps.generate(*ask, even, 5, profile.max_completion_tokens, 256),
    }
    spent = turns(ways, repeat)
    return [
        row("evaluation, 600 x 5", spent["plain"], spent["ours"]),
        row("evaluation, sorted by length", spent["sorted"], spent["ours"]),
    ]


def turns(ways: dict[str, Callable[[], Any]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each way, taken in turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - began)
    return spent


@BENCHMARKS.register
def memory(profile: Profile, repeat: int) -> list[dict]:
    """Largest resident memory of a process that takes GRPO steps."""
    peaks = {name: [_alone("peak", name == "ours") for _ in range(repeat)]
             for name in ("stock", "ours")}  # fmt: skip
    return [row("GRPO memory", peaks["stock"], peaks["ours"], "GB")]


@BENCHMARKS.register
def grid(profile: Profile, repeat: int) -> list[dict]:
    """12 short runs, SFT and GRPO: workers that import once, against a process for each run."""
    runs = list(range(12))

    def loop() -> None:
        for number in runs:
            _alone("one", number)

    spent = turns({"stock": loop, "ours": lambda: _alone("pool", len(runs))}, repeat)
    return [row("12-run grid", spent["stock"], spent["ours"])]


@BENCHMARKS.register
def growth(profile: Profile, repeat: int) -> list[dict]:
    """How ours grows: samples a prompt, rows, answer length, width of the model, runs of a grid."""
    from benchmarks import steps
    from hybridlib import data, models, rollout

    found = []
    with tempfile.TemporaryDirectory() as out:
        for n in (4, 8, 16):
            timed = steps.seconds(steps.grpo(
                profile, True, out, repeat + 1, per_device_train_batch_size=16 * n,
                num_generations=n,
            ))  # fmt: skip
            found.append(row("GRPO step", [], timed["step"], size=n, grows="samples a prompt"))
        for factor in (1, 2, 4):
            wide = steps.wider(profile, factor, out)
            timed = steps.seconds(steps.sft(wide, True, out, repeat + 1))
            found.append(row("SFT step", [], timed["step"], size=factor, grows="model width"))
    model, tokenizer = models.load(profile)
    rows = data.load(profile.datasets[0], "train", 400)["prompt"]
    for count in (100, 200, 400):
        spent = turns({"ours": lambda c=count: rollout.sample(
            model, tokenizer, rows[:c], 5, profile.max_completion_tokens)}, repeat)  # fmt: skip
        found.append(row("evaluation", [], spent["ours"], size=count, grows="rows"))
    ids = rollout.encode(tokenizer, rows[:32])
    for length in (24, 48, 96):  # no end token: each answer is as long as it may be
        spent = turns({"ours": lambda k=length: rollout.sample_ids(
            model, ids, 8, k, eos=-1)}, repeat)  # fmt: skip
        found.append(row("sampling", [], spent["ours"], size=length, grows="tokens an answer"))
    for count in (3, 6, 12):
        spent = turns({"ours": lambda c=count: _alone("pool", c)}, max(1, repeat // 2))
        found.append(row("grid", [], spent["ours"], size=count, grows="runs"))
    return found


@BENCHMARKS.register
def curves(profile: Profile, repeat: int) -> list[dict]:
    """Reward by step over `repeat` seeds: does the faster engine learn the same?"""
    from benchmarks import steps

    found = []
    with tempfile.TemporaryDirectory() as out:
        for seed in range(repeat):
            for name in ("stock", "ours"):
                trainer = steps.grpo(profile, name == "ours", out, 60, seed, learning_rate=3e-3)
                trainer.train()
                rewards = [e["reward"] for e in trainer.state.log_history if "reward" in e]
                found.append({"what": "curve", "engine": name, "seed": seed,
                              "reward": [round(r, 4) for r in rewards]})  # fmt: skip
    return found


@BENCHMARKS.register
def together(profile: Profile, repeat: int) -> list[dict]:
    """Would runs that share the base gain from one process? One decoding step of K runs, batched.

    Each run has its own folded weights, so that a batch over runs is a batched product; what it
    could save is the fixed cost of many small operations.
    """
    import torch

    width, hidden, size, layers = 128, 384, 48, 4
    found = []
    for runs in (1, 4):
        x = torch.randn(runs, size, width)
        shapes = [(width, 2 * width), (width, width), (width, 2 * hidden), (hidden, width)] * layers
        weights = [torch.randn(runs, *shape) * 0.05 for shape in shapes]
        inputs = {width: x, hidden: torch.randn(runs, size, hidden)}

        def apart(weights: list = weights, inputs: dict = inputs) -> None:
            for r in range(len(weights[0])):
                for w in weights:
                    torch.nn.functional.rms_norm(inputs[w.shape[1]][r] @ w[r], w.shape[2:])

        def batched(weights: list = weights, inputs: dict = inputs) -> None:
            for w in weights:
                torch.nn.functional.rms_norm(torch.bmm(inputs[w.shape[1]], w), w.shape[2:])

        def many(way: Callable[[], None]) -> Callable[[], None]:
            return lambda: [way() for _ in range(100)] and None

        spent = turns({"apart": many(apart), "batched": many(batched)}, repeat + 1)
        found.append(row("100 decoding steps, runs apart or batched", spent["apart"][1:],
                         spent["batched"][1:], size=runs, grows="runs in a batch"))  # fmt: skip
    return found


@BENCHMARKS.register
def floor(profile: Profile, repeat: int) -> list[dict]:
    """Operations of a GRPO step on distinct tokens, and the best this machine does."""
    import torch

    from hybridlib import data, models, rollout

    square = torch.randn(1024, 1024)
    spent = turns({"product": lambda: [square @ square for _ in range(20)]}, repeat + 1)
    peak = 20 * 2 * 1024**3 / min(spent["product"])
    block = torch.randn(16 * 2**20)
    spent = turns({"copy": lambda: block.clone()}, repeat + 1)
    bandwidth = 2 * block.numel() * 4 / min(spent["copy"])
    model, tokenizer = models.load(profile)
    rows = [r for n in profile.datasets for r in data.load(n, "train", 6)["prompt"]][:16]
    ids = rollout.encode(tokenizer, rows)
    tokens, _ = rollout.sample_ids(model, ids, 8, profile.max_completion_tokens,
                                   tokenizer.eos_token_id)  # fmt: skip
    prompt, answers = sum(map(len, ids)), sum(map(len, tokens))
    padded = len(tokens) * (max(map(len, ids)) + max(map(len, tokens)))
    config = model.config
    heads = config.num_attention_heads * config.hidden_size // config.num_attention_heads
    seen = sum(len(t) * (len(ids[i // 8]) + len(t) / 2) for i, t in enumerate(tokens))
    seen += sum(len(i) ** 2 / 2 for i in ids)
    weights = sum(p.numel() for p in model.parameters())  # the head is tied and used once
    forward = 2 * weights * (prompt + answers) + 4 * heads * config.num_hidden_layers * seen
    read = 8 * seen * config.num_hidden_layers * heads // 2  # keys and values in sampling, float32
    # Sampling once, the loss pass once, gradients of inputs and of folded weights once each.
    total = 4 * forward
    return [{
        "what": "floor", "prompt_tokens": prompt, "answer_tokens": answers, "padded": padded,
        "operations": total, "bytes": read, "peak_flops": peak, "bandwidth": bandwidth,
        "seconds": total / peak + read / bandwidth,
    }]  # fmt: skip


def _alone(task: str, value: Any) -> float:
    """Run a task of this module in a process of its own; what it printed last, as a number."""
    code = f"from benchmarks import alone; print(alone.{task}({value!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise StudyError(f"{task}({value}) failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.strip().splitlines()[-1])
