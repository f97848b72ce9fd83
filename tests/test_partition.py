"""Every partition rule splits cleanly, repeatably and in halves."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import StudyError
from hybridlib.partition import BUCKETS, RULES, SELECTIONS, bucket, select, split

HALVING = sorted(set(RULES) - {"all"})


def rows(levels, families=("gsm8k", "math", "mbpp")):
    return Dataset.from_dict(
        {
            "id": [f"row/{i}" for i in range(len(levels))],
            "family": [families[i % len(families)] for i in range(len(levels))],
            "level": list(levels),
            "completion": [
                [{"role": "assistant", "content": "x" * (7 * i % 5)}] for i in range(len(levels))
            ],
        }
    )


@pytest.mark.parametrize("rule", HALVING)
@settings(max_examples=15, deadline=None)
@given(
    cells=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=2, max_size=40),
    seed=st.integers(0, 9),
)
def test_halves_are_disjoint_covering_equal_and_repeatable(rule, cells, seed):
    table = rows([level for level, _ in cells])
    rates = [right / 4 for _, right in cells]
    sft, rl = split(table, rule, seed, rates)
    assert not set(sft["id"]) & set(rl["id"])
    assert sorted([*sft["id"], *rl["id"]]) == sorted(table["id"])
    assert 0 <= len(rl) - len(sft) <= 1
    assert [list(part["id"]) for part in split(table, rule, seed, rates)] == [
        list(sft["id"]),
        list(rl["id"]),
    ]
    order = {name: place for place, name in enumerate(table["id"])}
    assert [order[name] for name in sft["id"]] == sorted(order[name] for name in sft["id"])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 40),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    seed=st.integers(0, 9),
    overlaps=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_overlap_exchanges_rows_of_rl_for_rows_that_sft_has(n, share, seed, overlaps):
    table = rows([1] * n)
    apart = split(table, "random", seed, share=share)
    parts = [split(table, "random", seed, share=share, overlap=overlap) for overlap in overlaps]
    seen = [set(part.rl["id"]) & set(part.sft["id"]) for part in parts]
    assert seen[0] <= seen[1]
    for part, both, overlap in zip(parts, seen, overlaps, strict=True):
        assert list(part.sft["id"]) == list(apart.sft["id"])
        assert len(part.rl) == len(apart.rl) == len(set(part.rl["id"]))
        assert set(part.rl["id"]) - both <= set(apart.rl["id"])
        assert len(both) == min(len(apart.sft), round(overlap * len(apart.rl)))


def test_all_gives_both_stages_everything():
    table = rows([1, 2, 3])
    sft, rl = split(table, "all")
    assert list(sft["id"]) == list(rl["id"]) == list(table["id"])


def test_random_depends_on_the_seed():
    table = rows([1] * 40)
    assert list(split(table, "random", 0).sft["id"]) != list(split(table, "random", 1).sft["id"])


def test_level_sends_the_hard_levels_of_each_family_to_sft():
    hard_family = Dataset.from_dict(
        {
            "id": list("abcdefgh"),
            "family": ["easy"] * 4 + ["hard"] * 4,
            "level": [1, 2, 3, 4, 11, 12, 13, 14],
            "completion": [[{"content": ""}]] * 8,
        }
    )
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


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_a_share_moves_the_cut_and_a_larger_one_contains_a_smaller(share):
    table, rates = rows([1, 2, 3, 4] * 10), [index % 9 / 8 for index in range(40)]
    sft, rl = split(table, "passrate", 0, rates, share)
    assert len(sft) == 40 * share and len(sft) + len(rl) == 40
    assert set(sft["id"]) <= set(split(table, "passrate", 0, rates, 0.8).sft["id"])


@pytest.mark.parametrize("rule", sorted(SELECTIONS))
@settings(max_examples=15, deadline=None)
@given(rates=st.lists(st.integers(0, 8), min_size=30, max_size=60), seed=st.integers(0, 3))
def test_a_selection_keeps_as_many_of_each_family_as_asked_or_says_why(rule, rates, seed):
    table, rates = rows([1] * len(rates)), [right / 8 for right in rates]
    try:
        chosen = select(table, rule, 3, seed, rates)
    except StudyError as error:
        assert f"{rule} finds" in str(error) and "n_train asks for 3" in str(error)
        return
    families = [table[index]["family"] for index in chosen]
    assert chosen == sorted(set(chosen)) and len(chosen) == 9
    assert all(families.count(name) == 3 for name in set(families))
    if rule in BUCKETS:
        assert {bucket(rates[index]) for index in chosen} == {rule}


def test_buckets_cover_all_pass_rates_once():
    names = [bucket(right / 8) for right in range(9)]
    assert names == ["zero", *["low"] * 2, *["middle"] * 4, *["high"] * 2]


def test_a_rule_that_gives_too_few_scores_is_named(monkeypatch):
    monkeypatch.setitem(RULES, "short", lambda rows, pass_rates, seed: [0.0])
    RULES["short"].__name__ = "short"
    with pytest.raises(StudyError, match="rule short gives 1 scores for"):
        split(rows([1, 2, 3]), "short")
