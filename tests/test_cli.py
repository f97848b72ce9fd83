import subprocess
import sys

import pytest

from hybridlib import __main__ as cli

VERBS = ["run", "sweep", "table", "book", "base", "verify", "advise"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_the_heavy_imports(verb):
    code = (
        "import sys\n"
        f"sys.argv = ['hybridlib', '{verb}', '--help']\n"
        "import hybridlib.__main__ as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'pandas', 'papermill'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and "--profile" in done.stdout


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
        ("advise --profile tinny", "tiny-full"),
        ("advise --data gsm9k", "tiny_gsm8k"),
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
    ):
        assert word in out
    assert not list((world / "data").glob("results/*"))


@pytest.mark.slow
def test_a_dry_run_counts_the_parameters_of_your_folder(capsys, world, stranger):
    assert cli.main(["run", "--method", "sft", "--model", str(stranger), "--dry-run"]) == 0
    from transformers import AutoModelForCausalLM

    n = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(stranger).parameters())
    assert f"{n:,}" in capsys.readouterr().out
