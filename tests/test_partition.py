"""Every partition rule splits cleanly, repeatably and in halves."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import StudyError
from hybridlib.partition import RULES, split

HALVING = sorted(set(RULES) - {"all"})


def rows(levels, families=("gsm8k", "math", "mbpp")):
    return Dataset.from_dict({
        "id": [f"row/{i}" for i in range(len(levels))],
        "family": [families[i % len(families)] for i in range(len(levels))],
        "level": list(levels),
        "completion": [[{"role": "assistant", "content": "x" * (7 * i % 5)}]
                       for i in range(len(levels))],
    })  # fmt: skip


@pytest.mark.parametrize("rule", HALVING)
@settings(max_examples=15, deadline=None)
@given(cells=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=2, max_size=40),
       seed=st.integers(0, 9))  # fmt: skip
def test_halves_are_disjoint_covering_equal_and_repeatable(rule, cells, seed):
    table = rows([level for level, _ in cells])
    rates = [right / 4 for _, right in cells]
    sft, rl = split(table, rule, seed, rates)
    assert not set(sft["id"]) & set(rl["id"])
    assert sorted([*sft["id"], *rl["id"]]) == sorted(table["id"])
    assert 0 <= len(rl) - len(sft) <= 1
    assert [list(part["id"]) for part in split(table, rule, seed, rates)] == [
        list(sft["id"]), list(rl["id"])
    ]  # fmt: skip
    order = {name: place for place, name in enumerate(table["id"])}
    assert [order[name] for name in sft["id"]] == sorted(order[name] for name in sft["id"])


def test_all_gives_both_stages_everything():
    table = rows([1, 2, 3])
    sft, rl = split(table, "all")
    assert list(sft["id"]) == list(rl["id"]) == list(table["id"])


def test_random_depends_on_the_seed():
    table = rows([1] * 40)
    assert list(split(table, "random", 0).sft["id"]) != list(split(table, "random", 1).sft["id"])


def test_level_sends_the_hard_levels_of_each_family_to_sft():
    hard_family = Dataset.from_dict({
        "id": list("abcdefgh"), "family": ["easy"] * 4 + ["hard"] * 4,
        "level": [1, 2, 3, 4, 11, 12, 13, 14], "completion": [[{"content": ""}]] * 8,
    })  # fmt: skip
    assert list(split(hard_family, "level").sft["id"]) == list("cdgh")


def test_passrate_sends_what_the_base_rarely_solves_to_sft():
    rates = [0.0, 1.0, 0.25, 0.75]
    assert list(split(rows([1] * 4), "passrate", 0, rates).sft["id"]) == ["row/0", "row/2"]


def test_family_sends_the_weakest_families_to_sft():
    table = rows([1] * 8, families=("gsm8k", "math"))
    sft, rl = split(table, "family", 0, [0.2, 0.9] * 4)
    assert set(sft["family"]) == {"gsm8k"} and set(rl["family"]) == {"math"}


def test_length_sends_long_solutions_to_sft():
    sft, rl = split(rows([1] * 4), "length")  # 0, 2, 4, 1 characters
    assert list(sft["id"]) == ["row/1", "row/2"]


@pytest.mark.parametrize("rule", ["passrate", "family"])
def test_a_rule_without_the_pass_rates_it_needs_says_how_to_get_them(rule):
    with pytest.raises(StudyError, match=f"{rule}.*needs pass rates of the base; run difficulty"):
        split(rows([1, 2]), rule)


def test_mistakes_are_named():
    with pytest.raises(StudyError, match="unknown partition rule 'passrates'; valid: all, family"):
        split(rows([1, 2]), "passrates")
    with pytest.raises(StudyError, match="3 pass rates for 2 rows"):
        split(rows([1, 2]), "passrate", 0, [0, 1, 0])


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_says_what_it_does(rule):
    assert RULES[rule].__doc__
