import pytest
from toy_chapters import TOY, write

from hybridlib import StudyError, files
from hybridlib.book import build, plan


def test_a_chapter_says_what_it_needs_and_takes(root):
    write(root, "01_a", "print(1)", grids=["base"])
    write(root, "02_b", "print(2)", after=["01_a"])
    first, second = plan.catalogue().values()
    assert (first.grids, second.after) == (("base",), ("01_a",))
    assert first.parameters == {"profile": "tiny", "seed": 0}
    assert first.code == ("print(1)",)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"only": ["03_c"]}, "unknown chapter '03_c'; valid: 01_a, 02_b"),
        ({"force": ["x"]}, "unknown chapter 'x'; valid: 01_a, 02_b"),
        ({"parameters": {"x": {}}}, "unknown chapter 'x'; valid: 01_a, 02_b"),
        (
            {"parameters": {"01_a": {"sed": 3}}},
            "unknown parameter of 01_a 'sed'; valid: profile, seed",
        ),
    ],
)
def test_unknown_names_fail_with_the_valid_ones(root, options, line):
    write(root, "01_a")
    write(root, "02_b")
    with pytest.raises(StudyError, match=line):
        build.build(TOY, **options)


def test_chapters_that_wait_for_each_other_or_for_nobody_fail_in_one_line(root):
    write(root, "01_a", after=["02_b"])
    with pytest.raises(StudyError, match="unknown upstream chapter '02_b'; valid: 01_a"):
        plan.catalogue()
    write(root, "02_b", after=["01_a"])
    with pytest.raises(StudyError, match="depend on each other: 0"):
        plan.steps(plan.catalogue(), TOY)


def test_only_brings_what_is_upstream(root, capsys):
    for name, after in {"01_a": [], "02_b": ["01_a"], "03_c": []}.items():
        write(root, name, after=after)
    build.build(TOY, only=["02_b"], dry_run=True)
    said = capsys.readouterr().out
    assert "01_a     stale            never ran" in said and "02_b" in said and "03_c" not in said


def test_a_chapter_follows_the_other_profiles_whose_results_it_reads(root):
    write(root, "01_a")
    write(root, "02_b", reads=["searched"])
    before = [step.key for step in plan.steps(plan.catalogue(), TOY)]
    folder = files.results_folder("searched")
    folder.mkdir(parents=True)
    (folder / "sft.json").write_text("{}")
    after = [step.key for step in plan.steps(plan.catalogue(), TOY)]
    assert after[0] == before[0] and after[1] != before[1]
