import pytest

from hybridlib import StudyError, evaluate, files, results, study
from hybridlib.runs import Run


@pytest.mark.slow
def test_scores_are_those_of_the_items(tiny, small):
    scored = evaluate.score(*tiny, small)
    assert scored == evaluate.score(*tiny, small)
    assert set(scored["items"]) == {"gsm8k/test", "math/test", "mbpp/test"}
    for key, item in scored["items"].items():
        family, split = key.split("/")
        assert len(item["greedy"]) == len(item["correct"]) == len(item["level"]) == small.n_eval
        value = {
            s["metric"]: s for s in scored["scores"] if (s["family"], s["split"]) == (family, split)
        }
        assert value["greedy"]["value"] == pytest.approx(
            sum(map(int, item["greedy"])) / small.n_eval
        )
        assert value["sampled"]["value"] == pytest.approx(
            sum(map(int, item["correct"])) / small.n_eval / 2
        )
        assert value["pass@2"]["value"] == pytest.approx(
            sum(c != "0" for c in item["correct"]) / small.n_eval
        )
        assert all(
            s["low"] <= s["value"] <= s["high"] and s["n"] == small.n_eval for s in value.values()
        )


@pytest.mark.slow
def test_the_base_is_tested_at_other_temperatures_and_by_its_majority(small, world, monkeypatch):
    monkeypatch.setattr(evaluate, "MAJORITY", 4)  # the base is asked twice as often as others
    records = {t: study.execute(Run("base", temperature=t), small) for t in (1.0, 1e-4)}
    for temperature, record in records.items():
        for name, item in record["items"].items():
            assert item["samples"] == 4 and len(item["majority"]) == small.n_eval
            family = name.split("/")[0]
            mean = sum(item["majority"]) / small.n_eval
            facts = record["facts"]["solutions"][family]
            assert facts["majority_accuracy"] == pytest.approx(mean, abs=1e-4)
            if temperature < 1:  # as good as greedy
                assert item["correct"] == item["greedy"].replace("1", "4")
                assert item["majority"] == [float(digit) for digit in item["greedy"]]
    assert records[1.0]["items"] != records[1e-4]["items"]


@pytest.mark.parametrize("fields", [dict(method="sft"), dict(method="base", temperature=0)])
def test_a_temperature_is_of_a_base(fields):
    with pytest.raises(StudyError, match="goes with --method base"):
        Run(**dict(temperature=0.5) | fields)


@pytest.mark.slow
def test_lenient_and_given_up_answers_are_scored_beside_the_strict(tiny, small, monkeypatch):
    def texts(model, tokenizer, prompts, n, *_, **__):
        written = ["it is 3.", "#### 3", "\\boxed{9^{9^{9^9}}}", "def f(:"]
        return [[written[(row + k) % 4] for k in range(n)] for row, _ in enumerate(prompts)]

    monkeypatch.setattr(evaluate.rollout, "sample", texts)
    scores = evaluate.score(*tiny, small)["scores"]
    value = {(s["family"], s["metric"]): s["value"] for s in scores}
    counts = {
        s["family"]: tuple(s[reason] for reason in evaluate.GIVEN_UP)
        for s in scores
        if s["metric"] == "lenient"
    }
    assert {s["n"] for s in scores} == {small.n_eval}
    assert all(value[f, "lenient"] >= value[f, "sampled"] for f in counts)
    # of 4 x 2 answers each: two with the power tower, two that are no program
    assert counts == {"gsm8k": (0, 0, 0), "math": (2, 0, 0), "mbpp": (0, 0, 2)}
    record = {"id": "x", "profile": "p", "run": {}, "cost": {}, "facts": {}, "scores": scores}
    monkeypatch.setattr(results, "read", lambda _: [record])
    table = results.table("p")
    assert table[table.metric == "lenient"][[*evaluate.GIVEN_UP]].to_numpy().sum() == 4


@pytest.mark.slow
def test_pass_rates_are_kept_by_content(small, world, monkeypatch):
    from hybridlib import data, difficulty, models

    rows = data.load("tiny_math", "train", limit=6)
    rates = difficulty.pass_rates(small, rows)
    assert len(rates) == 6 and set(rates) <= {0.0, 0.5, 1.0}
    stored = list((files.results_folder("small") / "difficulty").glob("*.json"))
    assert len(stored) == 1
    with monkeypatch.context() as without:
        without.setattr(models, "load", None)
        assert difficulty.pass_rates(small, rows) == rates
    assert len(difficulty.pass_rates(small, rows.select([0, 1]))) == 2
    assert len(list(stored[0].parent.glob("*.json"))) == 2


def test_more_is_said_of_solutions_than_right_or_wrong():
    from hybridlib import data, evaluate, grading

    rows = data.load("tiny_gsm8k", "test", limit=2)
    gold = [row["completion"][-1]["content"] for row in rows]
    wrong = gold[0].replace("####", "<<1+1=3>>3\n####")
    sampled = [[gold[0], wrong], [gold[1], "#### 7"]]
    verdicts = [
        grading.grade_many(texts, [row["answer"]] * 2, [row["kind"]] * 2)
        for texts, row in zip(sampled, rows, strict=True)
    ]
    facts = evaluate.solution_facts(rows, sampled, verdicts)
    steps = gold[0].count("<<")
    held = 1 + steps / (steps + 1) + 1  # over the three answers that show steps
    assert facts["steps_shown"] == 0.75
    assert facts["steps_right"] == pytest.approx(held / 3, abs=1e-5)
    assert 0.5 <= facts["agreement"] <= 1 and facts["majority_accuracy"] >= 0.5
    assert set(facts) == {
        "steps_right",
        "steps_shown",
        "intermediate_recall",
        "answer_follows",
        "agreement",
        "majority_accuracy",
    }
