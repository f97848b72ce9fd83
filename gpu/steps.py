"""What is a first step, and how fast are the next? One backend per process, one line of JSON each.

python gpu/steps.py adapter FOLDER: save a fresh adapter that both backends start from.
python gpu/steps.py first sft|grpo hf|unsloth bf16|nf4 FOLDER: loss and gradient norm.
python gpu/steps.py speed hf|unsloth fp32|bf16|nf4 plain|engine: SFT at Qwen2.5-0.5B's shape.
python gpu/steps.py sample fp32|bf16: tokens per second at SmolLM2-135M's shape.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

from hybridlib import models, study
from hybridlib.engine import rollout
from hybridlib.methods import Job, train
from hybridlib.profiles import PROFILES, ROOT

PRECISIONS = dict(fp32="float32", bf16="bfloat16", nf4="bfloat16")
SHAPES = dict(  # random weights; the rows and the tokenizer are the tiny base's
    qwen=dict(
        kind="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864,
        num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        max_position_embeddings=4096, tie_word_embeddings=True,
    ),
    smollm=dict(
        kind="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536,
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        max_position_embeddings=2048, tie_word_embeddings=True,
    ),
)  # fmt: skip


def random_base(shape: str) -> Path:
    """Save a base of this shape, random weights and the tiny tokenizer; return its folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(tempfile.mkdtemp())
    options = dict(SHAPES[shape])
    tokenizer = models.load_tokenizer(str(ROOT / PROFILES["tiny"].model))
    torch.manual_seed(0)
    ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    config = AutoConfig.for_model(options.pop("kind"), **options, **ends)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def job_of(method: str, backend: str, precision: str, start: Path | None, **sft: object) -> Job:
    """Return a job on the tiny rows, its trainer's options changed by `sft`."""
    profile = replace(
        PROFILES["tiny"],
        dtype=PRECISIONS[precision],
        n_train=64,
        sft=PROFILES["tiny"].sft | dict(bf16=precision != "fp32", warmup_steps=0) | sft,
        grpo=PROFILES["tiny"].grpo | dict(bf16=precision != "fp32"),
    )
    run = study.Run(method, backend=backend, nf4=precision == "nf4")
    out = Path(tempfile.mkdtemp())
    return Job(run, profile, out, rows=study.rows_for(run, profile), start=start)


def trainer_of(job: Job) -> object:
    """Return the trainer that the job would train with."""
    made = []
    with mock.patch.object(
        train, "fit", lambda trainer, _: made.append(trainer) or train.Trained()
    ):
        try:
            train.METHODS[job.run.method](job)
        except AttributeError:  # the facts of a training that has not been
            if not made:
                raise
    return made[0]


def fixed_batch(trainer: object, tokenizer: object, rows: object) -> dict:
    """Return what GRPO's loss reads, the solutions of the rows being what was sampled."""
    import torch

    prompts = rollout.encode(tokenizer, rows["prompt"])
    answers = [tokenizer(turns[-1]["content"])["input_ids"] for turns in rows["completion"]]
    device = trainer.accelerator.device

    def padded(parts: list, left: bool) -> tuple:
        width = max(map(len, parts))
        ids = torch.full((len(parts), width), tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(parts), width, dtype=torch.long)
        for row, part in enumerate(parts):
            place = slice(width - len(part), width) if left else slice(0, len(part))
            ids[row, place], mask[row, place] = torch.tensor(part), 1
        return ids.to(device), mask.to(device)

    (prompt_ids, prompt_mask), (ids, mask) = padded(prompts, True), padded(answers, False)
    advantages = torch.tensor([(1.0, -0.6, 0.3)[row % 3] for row in range(len(prompts))])
    return dict(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=ids,
        completion_mask=mask,
        advantages=advantages.to(device),
        num_items_in_batch=mask.sum(),
    )


def first_step(method: str, backend: str, precision: str, start: Path) -> dict:
    """Return the loss and the gradient norm of a first step on the tiny base."""
    job = job_of(method, backend, precision, start, max_steps=1)
    trainer = trainer_of(job)
    if method == "sft":
        trainer.train()
        logged = trainer.state.log_history[0]
        return {name: float(logged[name]) for name in ("loss", "grad_norm")}
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.model.train()
    batch = fixed_batch(trainer, trainer.processing_class, job.rows.select(range(24)))
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(model, batch)
    loss.backward()
    squares = [p.grad.float().pow(2).sum() for p in model.parameters() if p.grad is not None]
    return {"loss": loss.item(), "grad_norm": float(sum(squares)) ** 0.5}


def speed(backend: str, precision: str, path: str) -> dict:
    """Return the median seconds of an SFT step of 32 rows, and the peak of the GPU's memory."""
    import torch
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            torch.cuda.synchronize()
            ends.append(time.perf_counter())

    checkpointing = path == "plain"
    job = job_of(
        "sft", backend, precision, None, max_steps=12, gradient_checkpointing=checkpointing
    )
    job = replace(job, profile=replace(job.profile, model=str(random_base("qwen"))))
    trainer = trainer_of(job)
    trainer.add_callback(Clock())
    trainer.train()
    steps = sorted(after - before for before, after in zip(ends[3:], ends[4:], strict=False))
    tokens = max(train._tokens_so_far(entry) for entry in trainer.state.log_history) / 12
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"seconds": steps[len(steps) // 2], "tokens": tokens, "peak_gb": round(peak, 2)}


def sampling(precision: str) -> dict:
    """Return how many tokens a second the study's sampler draws, 1,600 sequences at once."""
    import torch

    profile = replace(
        PROFILES["tiny"], model=str(random_base("smollm")), dtype=PRECISIONS[precision]
    )
    model, _ = models.load(profile)
    prompts = [list(range(5, 5 + 40 + i % 40)) for i in range(200)]
    for length in (8, 128):  # the first warms up
        torch.cuda.synchronize()
        began = time.perf_counter()
        ids, _ = rollout.sample_ids(model.eval(), prompts, 8, length, 0)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return {"tokens_per_second": round(sum(map(len, ids)) / seconds)}


def adapter(folder: Path) -> dict:
    """Save a LoRA of rank 8 whose two factors are both drawn, so that both have gradients."""
    import torch

    model, _ = models.load(PROFILES["tiny"], "lora", 8)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(folder)
    return {"adapter": str(folder)}


def main(what: str, *rest: str) -> None:
    if what == "first":
        *names, folder = rest
        result = first_step(*names, Path(folder))
    elif what == "adapter":
        result = adapter(Path(rest[0]))
    else:
        result = {"speed": speed, "sample": sampling}[what](*rest)
    print(json.dumps({"what": " ".join((what, *rest[:3])), **result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
