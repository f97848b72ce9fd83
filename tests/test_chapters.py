import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import hybridlib
from hybridlib import StudyError, results
from hybridlib.book import build, cache, kernels, pages
from hybridlib.profiles import PROFILES

REPOSITORY = Path(__file__).parents[1]
TOY = replace(PROFILES["tiny"], name="toy", model="none")


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in (hybridlib, results):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def write(root, name, *code, after=(), grids=(), reads=(), seed=0, prose="Prose."):
    """A notebook of title, parameters cell and one cell per piece of code."""
    cell = {"metadata": {}, "execution_count": None, "outputs": [], "cell_type": "code"}
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {name}\n\n{prose}"},
        cell
        | {
            "id": "parameters",
            "metadata": {"tags": ["parameters"]},
            "source": f'profile = "tiny"\nseed = {seed}',
        },
        *(cell | {"id": f"code{i}", "source": text, "metadata": {}} for i, text in enumerate(code)),
    ]
    metadata = {
        "hybridlib": {"after": list(after), "grids": list(grids), "reads": list(reads)},
        "kernelspec": {"name": "mine", "display_name": "Mine", "language": "python"},
    }
    path = root / "notebooks" / f"{name}.ipynb"
    path.write_text(
        json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
    )


def reasons(**options):
    return {s.chapter.name: s.reason for s in build.plan(build.catalogue(), TOY, **options)}


def run(**options):
    steps = build.plan(build.catalogue(), TOY, **options)
    kernels.run(steps, TOY, jobs=2)
    return {step.chapter.name: step for step in steps}


def shown(name):
    cells = json.loads((cache.executed(TOY) / f"{name}.ipynb").read_text())["cells"]
    return ["".join(out["text"]) for c in cells for out in c.get("outputs", ()) if "text" in out]


def test_a_chapter_says_what_it_needs_and_takes(root):
    write(root, "01_a", "print(1)", grids=["base"])
    write(root, "02_b", "print(2)", after=["01_a"])
    first, second = build.catalogue().values()
    assert (first.grids, second.after) == (("base",), ("01_a",))
    assert first.parameters == {"profile": "tiny", "seed": 0}
    assert first.code == ("print(1)",)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"only": ["03_c"]}, "unknown chapter '03_c'; valid: 01_a, 02_b"),
        ({"force": ["x"]}, "unknown chapter 'x'; valid: 01_a, 02_b"),
        ({"parameters": {"x": {}}}, "unknown chapter 'x'; valid: 01_a, 02_b"),
        ({"parameters": {"01_a": {"sed": 3}}},
         "unknown parameter of 01_a 'sed'; valid: profile, seed"),
    ],
)  # fmt: skip
def test_unknown_names_fail_with_the_valid_ones(root, options, line):
    write(root, "01_a")
    write(root, "02_b")
    with pytest.raises(StudyError, match=line):
        build.build(TOY, **options)


def test_chapters_that_wait_for_each_other_or_for_nobody_fail_in_one_line(root):
    write(root, "01_a", after=["02_b"])
    with pytest.raises(StudyError, match="unknown upstream chapter '02_b'; valid: 01_a"):
        build.catalogue()
    write(root, "02_b", after=["01_a"])
    with pytest.raises(StudyError, match="depend on each other: 0"):
        build.plan(build.catalogue(), TOY)


def test_only_brings_what_is_upstream(root, capsys):
    for name, after in {"01_a": [], "02_b": ["01_a"], "03_c": []}.items():
        write(root, name, after=after)
    build.build(TOY, only=["02_b"], dry_run=True)
    said = capsys.readouterr().out
    assert "01_a     stale            never ran" in said and "02_b" in said and "03_c" not in said


def test_key_follows_imports_but_not_annotations(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    sources = {
        "__init__": "",
        "train": "def f():\n    from hybridlib.models import load",
        "models": "from typing import TYPE_CHECKING\n"
                  "if TYPE_CHECKING:\n    from hybridlib import figures",
        "figures": "", "stats": "", "merge": "import hybridlib.stats",
    }  # fmt: skip
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert cache.imported(["%matplotlib inline\nfrom hybridlib.methods import train"]) == [
        "__init__", "models", "train"]  # fmt: skip
    assert cache.imported(["import hybridlib.merging.merge as m"]) == ["__init__", "merge", "stats"]


def test_a_chapter_follows_the_other_profiles_whose_results_it_reads(root):
    write(root, "01_a")
    write(root, "02_b", reads=["searched"])
    before = [step.key for step in build.plan(build.catalogue(), TOY)]
    folder = results.folder("searched")
    folder.mkdir(parents=True)
    (folder / "sft.json").write_text("{}")
    after = [step.key for step in build.plan(build.catalogue(), TOY)]
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ({"seed": 0}, {"seed": 0}, ""),
        ({"seed": 0}, {"seed": 1}, "parameter seed changed"),
        ({}, {"seed": 1}, "parameter seed is new"),
        ({"seed": 1}, {}, "parameter seed is gone"),
        ({"seed": 1}, {"seed": None}, "parameter seed is missing"),
        ({}, dict.fromkeys("abcde", 0),
         "parameter a is new, parameter b is new, parameter c is new and 2 more"),
    ],
)  # fmt: skip
def test_reasons(old, new, reason):
    assert cache.why({"parameters": old}, {"parameters": new}) == reason


@pytest.mark.slow
def test_only_what_changed_runs_again_and_says_why(root, monkeypatch):
    from hybridlib import study

    monkeypatch.setitem(study.GRIDS, "toy", lambda profile: [study.Run("base")])
    result = results.folder("toy") / "base.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    write(root, "01_a", "print(profile, seed)")
    write(root, "02_b", "from hybridlib import stats", "print('b')", grids=["toy"])
    write(root, "03_c", "print('c')", after=["01_a"])
    assert {*reasons().values()} == {"never ran"}
    assert [step.status for step in run().values()] == ["ran"] * 3
    assert shown("01_a") == ["toy 0\n"]
    assert not [*cache.executed(TOY).glob("*partial*")]
    nothing = dict.fromkeys(("01_a", "02_b", "03_c"), "")
    assert reasons() == nothing
    write(root, "01_a", "print(profile, seed)", prose="Other words.")
    assert reasons() == nothing
    result.write_text("[]")
    assert reasons() == nothing | {"02_b": "result base changed"}
    result.unlink()
    assert reasons() == nothing | {"02_b": "result base is missing"}
    result.write_text("{}")
    write(root, "01_a", "print(profile, seed)", seed=1)
    changed = {"01_a": "parameter seed changed", "03_c": "upstream 01_a reran"}
    assert reasons() == nothing | changed
    assert reasons(parameters={"01_a": {"seed": 0}}) == nothing
    again = {name: step.status for name, step in run(force=["02_b"]).items()}
    assert again == {"01_a": "ran", "02_b": "reran, identical", "03_c": "ran"}
    assert shown("01_a") == ["toy 1\n"]
    (cache.executed(TOY) / "03_c.ipynb").unlink()
    assert reasons() == nothing | {"03_c": "executed notebook is gone"}


@pytest.mark.slow
def test_a_failed_chapter_is_named_and_the_others_run(root):
    write(root, "01_a", "x = 1", "raise ValueError('no such thing\\nmore')")
    write(root, "02_b", "print('b')", after=["01_a"])
    write(root, "03_c", "print('c')")
    steps = run()
    found = {name: step.status for name, step in steps.items()}
    assert found == {"01_a": "failed", "02_b": "skipped", "03_c": "ran"}
    assert steps["01_a"].error == (
        "cell 4: ValueError: no such thing; see _build/executed/toy/01_a.partial.ipynb"
    )
    assert steps["02_b"].reason == "upstream 01_a failed"
    assert reasons() == {"01_a": "never ran", "02_b": "never ran", "03_c": ""}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_leaves_no_half_file_and_no_kernel(root, how):
    write(root, "01_a", "print('a')")
    slow = ("import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\n"
            "time.sleep(0 if pathlib.Path('fast').exists() else 600)")  # fmt: skip
    write(root, "02_b", slow, after=["01_a"])
    # Under a shell that runs it in the background, Python would inherit a deaf ear for Ctrl-C.
    script = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
              "from dataclasses import replace; from hybridlib.book import build; from hybridlib import profiles;"
              "chapters.build(replace(profiles.PROFILES['tiny'], name='toy'))")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL,
                               env=os.environ | {"HYBRIDLIB_ROOT": str(root)})  # fmt: skip
    pid = root / "pid"
    _until(lambda: pid.exists() and pid.read_text())
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    _until(lambda: not _alive(int(pid.read_text())))
    assert not (cache.executed(TOY) / "02_b.ipynb").exists()
    assert reasons() == {"01_a": "", "02_b": "never ran"}
    (root / "fast").touch()
    assert run()["02_b"].status == "ran"
    assert not [*cache.executed(TOY).glob("*partial*")]


@pytest.mark.slow
def test_new_prose_meets_old_outputs_and_nothing_changed_costs_nothing(root, capsys):
    (root / "book").mkdir()
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- glob: notebooks/*\n"
        "- file: book/runs\n- file: book/reproduce\n")  # fmt: skip
    (root / "book" / "intro.md").write_text("# Intro\n\nA formula: $x^2$.\n")
    (root / "book" / "reproduce.md").write_text("# Reproduce\n")
    (root / "book" / "references.bib").write_text("")
    (root / "_config.yml").write_text((REPOSITORY / "_config.yml").read_text())
    code = "import random\nprint('drawn', random.random())"
    write(root, "01_a", code)
    write(root, "02_b", "1 / 0")
    with pytest.raises(SystemExit, match="02_b failed: cell 3: ZeroDivisionError"):
        build.build(TOY)
    write(root, "02_b", "2 + 2")
    page = build.build(TOY)
    assert page == root / "_build" / "html" / "index.html"
    chapter = page.parent / "notebooks" / "01_a.html"
    drawn = shown("01_a")[0].strip()
    assert drawn in chapter.read_text() and "Profile <code" in chapter.read_text()
    assert "Injected" not in chapter.read_text() and pages.external(page.parent) == []
    assert not (page.parent / "_static" / "mathjax" / "tex-svg.js").exists()
    assert (page.parent / "_static" / "mathjax" / "tex-chtml.js").exists()
    write(root, "01_a", code, prose="Words of today.")
    build.build(TOY)
    assert drawn in chapter.read_text() and "Words of today." in chapter.read_text()
    before = chapter.stat().st_mtime_ns
    build.build(TOY)
    assert chapter.stat().st_mtime_ns == before
    write(root, "01_a", code, prose="{ref}`nowhere`")
    with pytest.raises(StudyError, match="did not render"):
        build.build(TOY)
    assert "nowhere" in capsys.readouterr().err and "Words of today." in chapter.read_text()


def _until(met, seconds=60):
    end = time.time() + seconds
    while not met():
        assert time.time() < end, "waited in vain"
        time.sleep(0.1)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie that nobody waits for is not alive
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
