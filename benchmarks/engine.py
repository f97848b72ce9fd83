"""What is measured: each function a benchmark, each row of it a line of the table."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.settings import RUN_STEPS, THREADS
from hybridlib import ROOT, StudyError, models
from hybridlib.profiles import Profile
from hybridlib.registry import Registry

BENCHMARKS = Registry("benchmark")  # name -> (profile, repeat) -> rows


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
    """16 prompts of 8 samples each, and a step as the profile takes it, on one thread."""
    import torch

    from benchmarks import steps

    def build(lean: bool, count: int, seed: int, **options: Any) -> Any:
        return steps.grpo(profile, lean, out, count, seed, **options)

    large = dict(per_device_train_batch_size=128)
    with tempfile.TemporaryDirectory() as out:
        whole = parts("GRPO", steps.interleaved(lambda *a: build(*a, **large), repeat))
        torch.set_num_threads(1)
        own = steps.interleaved(build, repeat)
        torch.set_num_threads(THREADS)
    size = profile.grpo["per_device_train_batch_size"]
    mine = row(
        f"GRPO step of {size} samples, one thread", own["stock"]["step"], own["ours"]["step"]
    )
    return [*whole, mine]


@BENCHMARKS.register
def sft_step(profile: Profile, repeat: int) -> list[dict]:
    """32 rows as they come, TRL's default, and rows of alike length, the profile's setting."""
    from benchmarks import steps

    def build(lean: bool, count: int, seed: int, **options: Any) -> Any:
        return steps.sft(profile, lean, out, count, seed, **options)

    mixed = dict(train_sampling_strategy="random")
    with tempfile.TemporaryDirectory() as out:
        found = parts("SFT", steps.interleaved(lambda *a: build(*a, **mixed), 5 * repeat))
        alike = steps.interleaved(build, 5 * repeat)
    return [*found, row("SFT step, rows of alike length", alike["stock"]["step"],
                        alike["ours"]["step"])]  # fmt: skip


@BENCHMARKS.register
def evaluation(profile: Profile, repeat: int) -> list[dict]:
    """600 rows, 5 samples each, against `generate` on rows in their order and sorted by length."""
    from benchmarks import steps
    from hybridlib import data
    from hybridlib.engine import rollout

    model, tokenizer = models.load(profile)
    rows = [r for n in profile.datasets for r in data.load(n, "train", 200)["prompt"]]
    even = [rows[i] for _, i in sorted((len(ids), i) for i, ids in
                                       enumerate(rollout.encode(tokenizer, rows)))]  # fmt: skip
    ask, tokens = (model, tokenizer), profile.max_completion_tokens
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: rollout.sample(*ask, rows, 5, tokens, batch=256),
        "plain": lambda: steps.generate(*ask, rows, 5, tokens, 256),
        "sorted": lambda: steps.generate(*ask, even, 5, tokens, 256),
    }
    spent = turns(ways, repeat)
    return [
        row("evaluation of 600 rows x 5", spent["plain"], spent["ours"]),
        row("the same, stock sorted by length", spent["sorted"], spent["ours"]),
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
    peaks: dict[str, list[float]] = {"stock": [], "ours": []}
    for _ in range(repeat):
        for name, found in peaks.items():
            found.append(_alone("peak", name == "ours"))
    return [row("GRPO memory", peaks["stock"], peaks["ours"], "GB")]


@BENCHMARKS.register
def grid(profile: Profile, repeat: int) -> list[dict]:
    """12 short runs, SFT and GRPO: the study's workers against a plain loop of processes."""
    def loop() -> None:
        for number in range(12):
            _alone("one", number)

    spent = turns({"stock": loop, "ours": lambda: _alone("pool", 12)}, repeat)
    return [row(f"grid of 12 runs of {RUN_STEPS} steps", spent["stock"], spent["ours"])]


@BENCHMARKS.register
def growth(profile: Profile, repeat: int) -> list[dict]:
    """How ours grows: samples a prompt, rows, answer length, width of the model, runs of a grid."""
    from benchmarks import steps
    from hybridlib import data
    from hybridlib.engine import rollout

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
                trainer = steps.grpo(profile, name == "ours", out, 60, seed)
                trainer.train()
                rewards = [e["reward"] for e in trainer.state.log_history if "reward" in e]
                found.append({"what": "curve", "engine": name, "seed": seed,
                              "reward": [round(r, 4) for r in rewards]})  # fmt: skip
    return found


@BENCHMARKS.register
def together(profile: Profile, repeat: int) -> list[dict]:
    """Would runs that share the base gain from one process? One decoding step of K runs, batched.

    Each run has its own folded weights, so that a batch over runs is a batched product; what it
    could save is the fixed cost of many small operations. On one thread, as a worker has.
    """
    import torch

    torch.set_num_threads(1)
    config = models.load(profile)[0].config
    narrow, wide, size = config.hidden_size, config.intermediate_size, 48
    shapes = [(narrow, 2 * narrow), (narrow, narrow), (narrow, 2 * wide), (wide, narrow)]
    found = []
    for runs in (1, 4):
        weights = [torch.randn(runs, *shape) for shape in shapes * config.num_hidden_layers]
        inputs = {width: torch.randn(runs, size, width) for width in (narrow, wide)}

        def apart(weights: list = weights, inputs: dict = inputs) -> None:
            for run in range(len(weights[0])):
                for w in weights:
                    torch.nn.functional.rms_norm(inputs[w.shape[1]][run] @ w[run], w.shape[2:])

        def batched(weights: list = weights, inputs: dict = inputs) -> None:
            for w in weights:
                torch.nn.functional.rms_norm(torch.bmm(inputs[w.shape[1]], w), w.shape[2:])

        ways = {
            way.__name__: lambda way=way: [way() for _ in range(100)] for way in (apart, batched)
        }
        turns(ways, 1)  # warming up
        spent = turns(ways, repeat)
        found.append(row("100 decoding steps, runs apart or batched", spent["apart"],
                         spent["batched"], size=runs, grows="runs in a batch"))  # fmt: skip
    torch.set_num_threads(THREADS)
    return found


@BENCHMARKS.register
def floor(profile: Profile, repeat: int) -> list[dict]:
    """Operations that steps of 128 samples cannot avoid, and the best this machine does."""
    import torch

    from benchmarks import steps
    from hybridlib.engine import decoder

    square, block = torch.randn(1024, 1024), torch.randn(16 * 2**20)
    ways = {"product": lambda: [square @ square for _ in range(20)], "copy": block.clone}
    spent = turns(ways, repeat + 1)
    peak = 20 * 2 * 1024**3 / min(spent["product"])
    bandwidth = 2 * block.numel() * 4 / min(spent["copy"])
    read: list[tuple[int, int, int]] = []  # tokens, answer tokens, pairs that attend, per pass
    tree = decoder.Tree

    def counted(*args: Any) -> Any:
        made = tree(*args)
        read.append(
            (len(made.tokens), len(made.targets), int(made.positions.sum()) + len(made.tokens))
        )
        return made

    with tempfile.TemporaryDirectory() as out:
        trainer = steps.grpo(profile, True, out, repeat, per_device_train_batch_size=128)
        from unittest.mock import patch

        with patch("hybridlib.decoder.Tree", counted), patch("hybridlib.rollout.Tree", counted):
            trainer.train()
        model = trainer.model.get_base_model()
    logged = [e for e in trainer.state.log_history if "reward" in e]
    answers = sum(e["completions/mean_length"] * 128 for e in logged) / len(logged)
    padded = sum(e["completions/max_length"] for e in logged) / len(logged)
    prompts, taught = read[::2], read[1::2]  # a prefill, a loss pass
    mean = [[sum(r[i] for r in part) / len(part) for i in range(3)] for part in (prompts, taught)]
    config = model.config
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for n, p in model.named_parameters() if "lora" not in n) - head
    factors = sum(p.numel() for n, p in model.named_parameters() if "lora" in n)
    size = config.hidden_size // config.num_attention_heads
    width, layers = config.num_attention_heads * size, config.num_hidden_layers
    prompt, own = answers * mean[0][0] / 16, answers**2 / 256  # pairs: an answer sees both
    sampling = 2 * body * (mean[0][0] + answers) + 2 * head * answers
    sampling += 4 * width * layers * (mean[0][2] + prompt + own)
    loss = 2 * body * mean[1][0] + 2 * head * mean[1][1] + 4 * width * layers * mean[1][2]
    backward = loss + 4 * width * layers * mean[1][2] + 6 * factors * mean[1][0]
    kept = 8 * config.num_key_value_heads * size * layers * (prompt / 8 + own)  # float32, shared
    total = sampling + loss + backward
    return [{
        "what": "floor", "prompt_tokens": mean[0][0], "answer_tokens": answers,
        "taught_tokens": mean[1][0], "longest_answer": padded, "operations": total, "bytes": kept,
        "peak_flops": peak, "bandwidth": bandwidth, "seconds": total / peak + kept / bandwidth,
    }]  # fmt: skip


def _alone(task: str, value: Any) -> float:
    """Run a task of this module in a process of its own; what it printed last, as a number."""
    code = f"from benchmarks import alone; print(alone.{task}({value!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise StudyError(f"{task}({value}) failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.strip().splitlines()[-1])
