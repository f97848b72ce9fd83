"""The comparison of first steps that `gpu/check.sh` makes; the steps themselves want a GPU."""

import json

import pytest

from gpu import summary


def _results(**unsloth):
    plain = {"loss": 0.8, "grad_norm": 0.3}
    return {
        f"first-{method}-{backend}-{precision}": plain | (unsloth if backend == "unsloth" else {})
        for method in ("sft", "grpo")
        for backend in ("hf", "unsloth")
        for precision in ("bf16", "nf4")
    }


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"loss": 0.81}, True), ({"loss": 2.29}, False), ({"grad_norm": 0.31}, False)],
    ids=str,
)
def test_a_first_step_within_two_percent_is_the_same(change, same):
    assert {pair["same"] for pair in summary.parity(_results(**change))} == {same}


def test_a_step_that_failed_is_no_parity(tmp_path, capsys):
    for name, result in _results().items():
        line = json.dumps({"what": name, **result})
        (tmp_path / f"{name}.json").write_text(f"a notice\n{line}\n")
    assert summary.main(tmp_path) == 0
    (tmp_path / "first-grpo-unsloth-nf4.json").write_text("out of memory\n")
    assert summary.main(tmp_path) == 1
    assert "NO PARITY grpo nf4" in capsys.readouterr().out
