"""Small worlds for the tests: no network, a throw-away root for results and runs."""

import gc
import os
from dataclasses import replace
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each; more threads than cores wait in turn
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would import the compiler, in each process
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
from hypothesis import settings

import hybridlib
from hybridlib import files, profiles

SHARED = Path(__file__).resolve().parents[2] / "shared"
HUB, CASES = SHARED / "hub" / "datasets", SHARED / "cases"


settings.register_profile("whole", deadline=None)  # on a busy machine, seconds say nothing
settings.register_profile("fast", max_examples=10, deadline=None)


def pytest_configure(config):
    """Try fewer examples where the slow tests are left out, too."""
    settings.load_profile("fast" if config.option.markexpr == "not slow" else "whole")


def pytest_collection_finish():
    """Leave what the imports made out of every later search for garbage: a second each time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say it where the sandbox had fewer walls than it can have."""
    if mode := os.environ.get("HYBRIDLIB_SANDBOX"):
        terminalreporter.write_line(
            f"HYBRIDLIB_SANDBOX={mode}: programs under test could see this machine's files and "
            "processes; what needs the full sandbox was not tested",
            red=True,
        )


@pytest.fixture
def hub(monkeypatch):
    """The real sets in the hub's layout, where a copy lies beside the repository."""
    if not HUB.is_dir():
        pytest.skip("no copy of the real sets beside the repository")
    monkeypatch.setenv("HYBRIDLIB_HUB", str(HUB))


@pytest.fixture
def cases():
    """Inputs that once failed, where a copy lies beside the repository."""
    if not CASES.is_dir():
        pytest.skip("no copy of the inputs that failed beside the repository")
    return CASES


@pytest.fixture(scope="session")
def small():
    """The tiny profile, shrunk until a run takes seconds."""
    return replace(
        profiles.PROFILES["tiny"], name="small", n_train=8, n_eval=4, n_samples=2, n_difficulty=2,
        seeds=(0,), splits=("test",), max_completion_tokens=48,
        sft=dict(max_steps=2, per_device_train_batch_size=8, learning_rate=1e-3,
                 save_strategy="no"),
        grpo=dict(max_steps=2, per_device_train_batch_size=8, num_generations=4, learning_rate=1e-3,
                  save_strategy="no"),
    )  # fmt: skip


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A root of its own, for this process and its workers, with the shipped base linked in."""
    (tmp_path / "data" / "bases").mkdir(parents=True)
    (tmp_path / "data" / "bases" / "small").symlink_to(profiles.ROOT / "data" / "bases" / "small")
    monkeypatch.setenv("HYBRIDLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(files, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch):
    """Let pools execute their runs here: a process of its own would import for long, once more.

    What such processes do is tested in test_pool and test_processes.
    """
    from concurrent.futures import ThreadPoolExecutor

    from hybridlib import pool

    thread = ThreadPoolExecutor(1)

    def submit(self, run, seen=None, **options):
        return thread.submit(pool._execute_alone, self.execute, run, self.profile, seen, options)

    monkeypatch.setattr(pool.Pool, "submit", submit)
    yield
    thread.shutdown()


@pytest.fixture(scope="session")
def tiny():
    """The shipped base and its tokenizer."""
    from transformers import AutoModelForCausalLM

    from hybridlib import models

    folder = profiles.ROOT / "data" / "bases" / "small"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return model, models.load_tokenizer(str(folder))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A random-weight Qwen2 folder that stands in for a model from the hub."""
    from hybridlib import pretrain

    folder = tmp_path_factory.mktemp("stranger") / "qwen2-random"
    recipe = replace(pretrain.SIZES["small"], vocabulary=400, layers=2, feed_forward=128, seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 1500)
        tokenizer = pretrain.build_tokenizer(recipe)
    pretrain.build_model(recipe, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root of its own for a book of toy chapters."""
    for module in (hybridlib, files):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "notebooks").mkdir()
    return tmp_path
