import json
import subprocess
import sys

import pytest

from hybridlib import __main__ as cli
from hybridlib.runs import Run

VERBS = """
    run sweep table claims power book base verify restamp advise export
""".split()


HELP = """
import contextlib, io, json, sys
import hybridlib.__main__ as cli
heavy = {"torch", "transformers", "trl", "peft", "datasets", "pandas", "papermill"}
for verb in sys.argv[1:]:
    sys.argv, out = ["hybridlib", verb, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out):
        try: code = cli.main()
        except SystemExit as end: code = end.code
    print(json.dumps([verb, code, sorted(heavy & set(sys.modules)), out.getvalue()]))
"""


@pytest.fixture(scope="module")
def helped():
    """Exit code, heavy imports so far and output of each verb's --help, in one fresh process."""
    command = [sys.executable, "-c", HELP, *VERBS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {verb: rest for verb, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_the_heavy_imports(helped, verb):
    code, heavy, out = helped[verb]
    assert (code, heavy) == (0, [])
    assert "usage:" in out and "--profile" in out
    if verb == "advise":
        assert all(flag in out for flag in ("--dataset", "--model", "--columns", "--rows"))


@pytest.mark.parametrize(
    ("words", "valid"),
    [
        ("table --profile tinny", "tiny"),
        ("sweep fast", "scale"),
        ("run --method sfft", "grpo"),
        ("run --method grpo --rewards corect", "correct"),
        ("run --method sft --partition fair", "passrate"),
        ("run --method sft --dataset gsm9k --dry-run", "tiny_gsm8k"),
        ("book --only 09_nothing", "01_data"),
        ("book -p 01_data sed 3", "profile"),
        ("verify no_such_run", "no "),
        ("export no_such_run --to out", "no run 'no_such_run' in tiny"),
        ("advise --profile tinny", "tiny-full"),
        ("advise --dataset gsm9k", "tiny_gsm8k"),
        ("advise --model ./nowhere", "does not exist"),
        ("advise --columns question=q,answer=a", "--dataset"),
        ("advise", "python -m hybridlib sweep flip --profile tiny-full"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_valid_ones_and_code_2(words, valid, capsys, world):
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err.strip()
    assert valid in error and "\n" not in error


def test_a_dry_run_prints_run_options_and_estimate(capsys, world):
    assert cli.main("run --method grpo --profile qwen-0.5b --rank 4 --dry-run".split()) == 0
    out = capsys.readouterr().out
    for word in (
        "grpo_rank-4",
        "Qwen/Qwen2.5-0.5B",
        "num_generations",
        "epsilon",
        "494,032,768",
        "GiB",
        " min ",
        "(a question)\n  | Please reason step by step",
    ):
        assert word in out
    assert not list((world / "data").glob("results/*"))


RUN_FLAGS = {
    "--method sft": Run("sft"),
    "--method sft --nf4 --learning-rate 1e-3 --n-train 6": Run(
        "sft", nf4=True, learning_rate=1e-3, n_train=6
    ),
    "--rewards correct format --reward-weights 1 0.5 --method grpo": Run(
        "grpo", rewards=("correct", "format"), reward_weights=(1.0, 0.5)
    ),
    "--method merge --merge sum --parents sft grpo --lambdas 1 -0.5 --seed 3": Run(
        "merge", merge="sum", parents=("sft", "grpo"), lambdas=(1.0, -0.5), seed=3
    ),
    "--method=sft --options weight_decay=0.1 optim=sgd --on org/rows": Run(
        "sft", options=("weight_decay=0.1", "optim=sgd"), on=("org/rows",)
    ),
}


@pytest.mark.parametrize("flags, run", RUN_FLAGS.items(), ids=RUN_FLAGS)
def test_the_flags_of_run_are_the_fields_of_a_run(flags, run, monkeypatch):
    from hybridlib import estimate

    shown = []
    monkeypatch.setattr(estimate, "show", lambda *arguments: shown.append(arguments))
    mine = "--dataset org/rows --columns question=Q,answer=A --dry-run"
    assert cli.main(f"run {flags} {mine}".split()) == 0
    [(parsed, profile)] = shown
    assert parsed == run
    assert profile.datasets == ("org/rows",) and profile.columns == {"question": "Q", "answer": "A"}


@pytest.mark.parametrize(
    "flags, options",
    [
        ("", {}),
        ("--force", {"force": ()}),
        (
            "--force 01_a --only 02_b 03_c --jobs 1",
            {"force": ("01_a",), "only": ("02_b", "03_c"), "jobs": 1},
        ),
        (
            "-p 01_a n 3 -p 01_a low -1 --parameter 02_b name word --dry-run",
            {
                "parameters": {"01_a": {"n": 3, "low": -1}, "02_b": {"name": "word"}},
                "dry_run": True,
            },
        ),
    ],
)
def test_the_flags_of_book(flags, options, monkeypatch):
    from hybridlib.book import build

    built = []
    monkeypatch.setattr(build, "build", lambda profile, **options: built.append(options))
    assert cli.main(f"book {flags}".split()) == 0
    defaults = {"only": (), "force": None, "dry_run": False, "jobs": 2, "parameters": {}}
    assert built == [defaults | options]


def test_verify_takes_runs_anywhere(monkeypatch):
    from hybridlib import verify

    asked = []
    monkeypatch.setattr(verify, "verify", lambda *arguments: asked.append(arguments[1:]))
    for flags in ("", "a b --sample 3", "--seed 1 a"):
        assert cli.main(f"verify {flags}".split()) == 0
    assert asked == [(2, 0, ()), (3, 0, ("a", "b")), (2, 1, ("a",))]


@pytest.mark.parametrize("words", ["", "nothing", "sweep", "run", "run --method sft --rank x"])
def test_what_is_no_command_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert end.value.code == 2
    assert "python -m hybridlib" in capsys.readouterr().err


def test_help_of_run_lists_the_rewards_with_their_ranges(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "cosine [-1, 1]" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.slow
def test_a_dry_run_counts_the_parameters_of_your_folder(capsys, world, stranger):
    assert cli.main(["run", "--method", "sft", "--model", str(stranger), "--dry-run"]) == 0
    from transformers import AutoModelForCausalLM

    n = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(stranger).parameters())
    assert f"{n:,}" in capsys.readouterr().out


def test_a_dry_run_shows_a_whole_prompt_and_counts_its_tokens(capsys, world, tiny):
    from hybridlib import data, profiles
    from hybridlib.engine import rollout

    assert cli.main("run --method base --dry-run".split()) == 0
    out = capsys.readouterr().out
    profile = profiles.resolve("tiny")
    row = data.load(profile.datasets[0], "train", 1)[0]
    [ids] = rollout.encode(tiny[1], [row["prompt"]])
    assert row["prompt"][0]["content"] in out and f"({len(ids)} tokens)" in out
