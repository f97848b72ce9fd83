"""Rewards: in range, in the form that TRL calls, and each pays for what it says."""

import pytest

from hybridlib import StudyError, data, grading, rewards
from hybridlib.rewards import REWARDS

RIGHT, WRONG = "<<12+7=19>>19\n#### 19", "<<12+7=18>>18\n#### 18"


def pay(name, texts, answer="19", kind="number"):
    n = len(texts)
    columns = {"answer": [answer] * n, "kind": [kind] * n, "prompts": [""] * n}
    return REWARDS[name](completions=texts, trainer_state=None, **columns)


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("family", ["tiny_gsm8k", "tiny_math", "tiny_mbpp"])
def test_every_reward_is_a_number_in_range_for_gold_and_garbage(name, family):
    rows = data.load(family, "train", limit=6)
    gold = [c[0]["content"] for c in rows["completion"]]
    for texts in (gold, ["", "nonsense", "#### ", "\\boxed{", "def", "<<=>>"]):
        paid = REWARDS[name](texts, answer=rows["answer"], kind=rows["kind"])
        assert len(paid) == 6 and all(isinstance(p, float) and 0 <= p <= 1 for p in paid)
        talks = [[{"role": "assistant", "content": text}] for text in texts]
        assert REWARDS[name](talks, answer=rows["answer"], kind=rows["kind"]) == paid


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_says_its_range(name):
    assert "0" in REWARDS[name].__doc__ and "1" in REWARDS[name].__doc__


@pytest.mark.parametrize("name", ["correct", "format", "brevity"])
def test_gold_is_paid(name):
    for family in ("tiny_gsm8k", "tiny_math", "tiny_mbpp"):
        rows = data.load(family, "train", limit=5)
        paid = REWARDS[name](rows["completion"], answer=rows["answer"], kind=rows["kind"])
        assert min(paid) > 0.5


def test_correct():
    assert pay("correct", [RIGHT, WRONG, ""]) == [1, 0, 0]


def test_format_pays_for_the_form_alone():
    assert pay("format", [RIGHT, WRONG, "19", RIGHT + "\n#### 19"]) == [1, 1, 0, 0]


def test_brevity_pays_short_right_answers_only():
    long = "So. " * 50 + RIGHT
    short, longer, wrong, endless = pay("brevity", [RIGHT, long, WRONG, "So. " * 900 + RIGHT])
    assert 1 > short > longer > 0 == wrong == endless


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("<<12+7=19>>19 and <<2*3=7>>7", [True, False]),
        ("<<(1+2)*3=9>> <<7/2=3.5>> <<-4+1=-3>>", [True, True, True]),
        ("<<100/3=33.33>> <<100/3=33.34>> <<10/3=3>>", [True, False, False]),
        ("<<abc=3>> <<1/0=0>> <<9**9**9=1>> <<=>>", [False, False, False]),
        ("we have 3 + 4 = 7 apples and 7-2 = 4 left", [True, False]),
        ("1+1=2=3-1", [True, True]),
        ("4x+4-x=3x+4\n8x+3+1=8x+5", [True, False]),
        ("x = 5, so f(x) = 7", []),
        ("n = n-8", [False]),
        ("no step at all", []),
        ("= = 1+ = 2", []),
    ],
)
def test_steps(text, holds):
    assert rewards.steps(text) == holds


def test_arithmetic_is_the_share_of_steps_that_hold():
    assert pay("arithmetic", [RIGHT, WRONG, "<<1+1=2>> <<1+1=3>>", "19"]) == [1, 0, 0.5, 0]


def test_random_repeats_and_is_even():
    texts = [f"text {i}" for i in range(2000)]
    paid = pay("random", texts)
    assert paid == pay("random", texts) and 0.45 < sum(paid) / 2000 < 0.55


def test_rewards_of_a_batch_share_one_grading(monkeypatch):
    calls = []
    grade = grading.grade_many
    monkeypatch.setattr(grading, "grade_many", lambda *a: calls.append(1) or grade(*a))
    texts = [RIGHT, WRONG, "asked only here"]
    for name in REWARDS:
        pay(name, texts)
    assert len(calls) == 1


def test_an_unknown_reward_lists_the_valid_ones():
    with pytest.raises(StudyError, match="unknown reward 'corect'; valid: arithmetic, brevity"):
        REWARDS["corect"]
