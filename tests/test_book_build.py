import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_chapters import TOY, reasons, run, shown, write

from hybridlib import StudyError, files
from hybridlib.book import build, cache, kernels, pages

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_only_what_changed_runs_again_and_says_why(root, monkeypatch):
    from hybridlib import study

    monkeypatch.setitem(study.GRIDS, "toy", lambda profile: [study.Run("base")])
    result = files.results_folder("toy") / "base.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    write(root, "01_a", "print(profile, seed)")
    write(root, "02_b", "from hybridlib import stats", "print('b')", grids=["toy"])
    write(root, "03_c", "print('c')", after=["01_a"])
    assert {*reasons().values()} == {"never ran"}
    assert [step.status for step in run().values()] == ["ran"] * 3
    assert shown("01_a") == ["toy 0\n"]
    assert not [*cache.executed_folder(TOY).glob("*partial*")]
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
    (cache.executed_folder(TOY) / "03_c.ipynb").unlink()
    assert reasons() == nothing | {"03_c": "executed notebook is gone"}


def test_chapters_run_after_those_upstream_and_no_more_at_once_than_jobs(root, monkeypatch, capsys):
    upstream = {
        "01_a": [],
        "02_b": ["01_a"],
        "03_c": ["01_a"],
        "04_d": ["02_b", "03_c"],
        "05_e": [],
    }
    for name, after in upstream.items():
        write(root, name, after=after)
    running, finished, most = set(), [], []

    def execute(step, profile, workers):
        assert {*step.chapter.after} <= {*finished}
        running.add(step.chapter.name)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(step.chapter.name)
        finished.append(step.chapter.name)
        step.status = "ran"

    monkeypatch.setattr(kernels, "_execute", execute)
    assert {step.status for step in run().values()} == {"ran"}
    assert sorted(finished) == sorted(upstream) and max(most) <= 2
    assert "[5/5]" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_chapter_is_named_and_the_others_run(root):
    write(root, "01_a", "x = 1", "raise ValueError('no such thing\\nmore')")
    write(root, "02_b", "print('b')", after=["01_a"])
    write(root, "03_c", "print('c')")
    write(root, "04_d", "print('d')", after=["02_b"])
    steps = run()
    statuses = {name: step.status for name, step in steps.items()}
    assert statuses == {"01_a": "failed", "02_b": "skipped", "03_c": "ran", "04_d": "skipped"}
    assert steps["01_a"].error == (
        "cell 4: ValueError: no such thing; see _build/executed/toy/01_a.partial.ipynb"
    )
    assert steps["02_b"].reason == "upstream 01_a failed"
    assert steps["04_d"].reason == "upstream 02_b skipped"
    assert reasons() == dict.fromkeys(("01_a", "02_b", "04_d"), "never ran") | {"03_c": ""}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_leaves_no_half_file_and_no_kernel(root, how):
    write(root, "01_a", "print('a')")
    stuck = "__import__('re').match('(a+)+$', 'a' * 40 + 'b')"  # holds the interpreter's lock
    slow = (
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\n"
        f"pathlib.Path('fast').exists() or {stuck if how == signal.SIGKILL else 'time.sleep(600)'}"
    )
    write(root, "02_b", slow, after=["01_a"])
    # Under a shell that runs it in the background, Python would inherit a deaf ear for Ctrl-C.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dataclasses import replace\n"
        "from hybridlib.book import build\n"
        "from hybridlib.profiles import PROFILES\n"
        "build.build(replace(PROFILES['tiny'], name='toy'))\n"
    )
    environment = os.environ | {"HYBRIDLIB_ROOT": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=environment
    )
    pid = root / "pid"
    _until(lambda: pid.exists() and pid.read_text())
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    _until(lambda: not _alive(int(pid.read_text())))
    assert not (cache.executed_folder(TOY) / "02_b.ipynb").exists()
    assert reasons() == {"01_a": "", "02_b": "never ran"}
    (root / "fast").touch()
    assert run()["02_b"].status == "ran"
    assert not [*cache.executed_folder(TOY).glob("*partial*")]


@pytest.mark.slow
def test_two_builds_at_once_execute_each_chapter_once(root):
    """The second waits, and finds the chapters of the first; if the first is killed, its work."""
    count = "with open('executed', 'a') as file: print('{}', file=file)"
    write(root, "01_a", count.format("a"), "import time; time.sleep(2)")
    write(root, "02_b", count.format("b"), after=["01_a"])
    script = (
        "from dataclasses import replace\n"
        "from hybridlib.book import build, pages\n"
        "from hybridlib.profiles import PROFILES\n"
        "pages.render = lambda *of: 'the page'\n"
        "build.build(replace(PROFILES['tiny'], name='toy'))\n"
    )

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HYBRIDLIB_ROOT": str(root)},
        )

    first = start()
    _until((root / "executed").exists)
    second, third = start(), start()
    shown = [process.communicate(timeout=120)[0] for process in (first, second, third)]
    assert (root / "executed").read_text().split() == ["a", "b"]
    assert all("the page" in text for text in shown)
    for text in shown[1:]:
        assert f"waiting for lock of process {first.pid} on" in text
        assert text.count("cached") == 2
    (root / "executed").unlink()
    write(root, "01_a", count.format("a"), "import time; time.sleep(3)")
    first = start()
    _until((root / "executed").exists)
    second = start()
    assert "waiting for lock" in second.stdout.readline()
    first.kill()
    first.communicate()
    second.communicate(timeout=120)
    assert (root / "executed").read_text().split() == ["a", "a", "b"]


@pytest.mark.slow
def test_new_prose_meets_old_outputs_and_nothing_changed_costs_nothing(root, capsys):
    (root / "book").mkdir()
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- glob: notebooks/*\n"
        "- file: book/runs\n- file: book/reproduce\n"
    )
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
    assert "Injected" not in chapter.read_text() and pages.external_loads(page.parent) == []
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
