"""How does one notebook run? Papermill in its own process, kernels over local sockets."""

import graphlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import hybridlib
from hybridlib import processes, results
from hybridlib.book import cache
from hybridlib.book.plan import Step
from hybridlib.profiles import Profile

TIMEOUT = 3600  # seconds for one cell; training happens before, in `study.execute_all`
WORKER = "from hybridlib.book.kernels import work; work()"
KERNEL_STARTUP = '__import__("hybridlib.processes").processes.end_with_parent({parent})\n'
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


def run(steps: list[Step], profile: Profile, jobs: int) -> None:
    """Execute the stale chapters, `jobs` at a time, upstream first.

    Writes each executed notebook and its record into `cache.executed_folder`, prints a line per
    chapter, and fills in the steps' status, seconds, record and error. Chapters that come after a
    failed one are skipped; the others still run.
    """
    cache.executed_folder(profile).mkdir(parents=True, exist_ok=True)
    jobs = max(jobs, 1)
    stale = {step.chapter.name: step for step in steps if step.reason}
    order = graphlib.TopologicalSorter(
        {name: [up for up in step.chapter.after if up in stale] for name, step in stale.items()}
    )
    order.prepare()
    unfinished = dict(stale)

    def finish(step: Step) -> None:
        order.done(step.chapter.name)
        del unfinished[step.chapter.name]
        print(
            f"[{len(stale) - len(unfinished)}/{len(stale)}] {step.chapter.name} {step.status} in "
            f"{step.seconds:.0f} s ({step.error or step.reason})"
            f"{_time_left(list(unfinished.values()), jobs)}",
            flush=True,
        )

    workers: list[subprocess.Popen] = []
    pool = ThreadPoolExecutor(jobs)
    running: dict[Future[None], Step] = {}
    try:
        while order.is_active():
            for step in map(stale.get, order.get_ready()):
                upstream = (stale[name] for name in step.chapter.after if name in stale)
                if cause := next((up for up in upstream if not up.has_outputs), None):
                    step.status = "skipped"
                    step.reason = f"upstream {cause.chapter.name} {cause.status}"
                    finish(step)
                else:
                    running[pool.submit(_execute, step, profile, workers)] = step
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    finish(running.pop(future))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(workers):
            process.kill()
        pool.shutdown(wait=True)


def work() -> None:
    """Execute one chapter: the main function of a worker process, which it ends.

    Reads the job, one line of JSON, from stdin and prints one line of JSON: {} on success, else
    {"error": message}. It ends with the process that started it, and its kernel with it.
    """
    job = json.loads(sys.stdin.readline())
    processes.end_with_parent(job["parent"])
    startup = Path(job["scratch"]) / "profile_default" / "startup"  # what IPython runs first
    startup.mkdir(parents=True)
    (startup / "end_with_parent.py").write_text(KERNEL_STARTUP.format(parent=os.getpid()))
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Two kernels on TCP can pick one port; sockets in a folder of their own cannot meet.
    transport = {"transport": "ipc", "ip": f"{job['scratch']}/k"} if os.name == "posix" else {}
    try:
        papermill.execute_notebook(
            job["source"],
            job["partial"],
            parameters=job["parameters"],
            kernel_name="python3",
            cwd=job["cwd"],
            progress_bar=False,
            start_timeout=180,
            execution_timeout=TIMEOUT,
            config=Config({"KernelManager": transport}),
        )
        answer = {}
    except PapermillExecutionError as error:
        # Papermill counts from 0 and has inserted a cell before it, so this is its number from 1.
        message = _first_line(error.evalue)
        answer = {"error": f"cell {error.cell_index}: {error.ename}: {message}"}
    except Exception as error:  # a dead kernel, a timeout: anything must reach the parent as a line
        answer = {"error": f"{type(error).__name__}: {_first_line(str(error))}"}
    print(json.dumps(answer), flush=True)
    os._exit(0)


def _execute(step: Step, profile: Profile, workers: list[subprocess.Popen]) -> None:
    """Execute one chapter and put its files in place, or note its error in the step."""
    started = time.time()
    partial = cache.executed_folder(profile) / f"{step.chapter.name}.partial.ipynb"
    answer = _run_worker(step, partial, workers)
    step.seconds = time.time() - started
    if error := answer.get("error"):
        if partial.exists():
            error += f"; see {partial.relative_to(hybridlib.ROOT)}"
        step.status, step.error = "failed", error
    else:
        _store(step, profile, partial)


def _run_worker(step: Step, partial: Path, workers: list[subprocess.Popen]) -> dict[str, Any]:
    """Execute one chapter in a worker process; return the worker's answer, {} or {"error": ...}.

    The worker writes the executed notebook to `partial`. While it runs it stands in `workers`, so
    that an interrupted build can kill it.
    """
    with tempfile.TemporaryDirectory(prefix="hl") as scratch, tempfile.TemporaryFile("w+") as log:
        job = {
            "source": str(step.chapter.path),
            "partial": str(partial),
            "scratch": scratch,
            "parameters": step.parameters,
            "cwd": str(hybridlib.ROOT),
            "parent": os.getpid(),
        }
        here = str(Path(hybridlib.__file__).parents[1])  # kernels read the package that builds
        settings = {
            "IPYTHONDIR": scratch,
            "JUPYTER_RUNTIME_DIR": scratch,
            "HYBRIDLIB_ROOT": str(hybridlib.ROOT),
            "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            text=True,
            stderr=log,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | QUIET | settings,
            start_new_session=True,
        )
        workers.append(process)
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        lines = process.stdout.read().splitlines()
        process.wait()
        process.stdin.close()
        workers.remove(process)
        if lines:
            return json.loads(lines[-1])
        log.seek(0)
        last = (log.read().strip().splitlines() or [""])[-1]
        return {"error": f"worker ended with code {process.returncode}: {last}"}


def _store(step: Step, profile: Profile, partial: Path) -> None:
    """Put the executed notebook and its record in place, each in one move; update the step."""
    outputs = cache.outputs_digest(partial)
    before = step.record or {}
    identical = (before.get("key"), before.get("outputs")) == (step.key, outputs)
    step.status = "reran, identical" if identical else "ran"
    step.record = {
        "key": step.key,
        "parts": step.parts,
        "parameters": step.parameters,
        "seconds": round(step.seconds, 1),
        "outputs": outputs,
        "identical": identical,
        "provenance": results.provenance(),
    }
    folder, name = cache.executed_folder(profile), step.chapter.name
    partial_record = folder / f"{name}.json.partial"
    partial_record.write_text(json.dumps(step.record, indent=1))
    partial.replace(folder / f"{name}.ipynb")
    partial_record.replace(folder / f"{name}.json")


def _time_left(unfinished: list[Step], jobs: int) -> str:
    """Say how long the rest will take, by what it took last time; "" where nothing is known."""
    known = [step.record["seconds"] for step in unfinished if step.record]
    if not known:
        return ""
    seconds = sum(known) / len(known) * len(unfinished) / jobs
    return f"; about {seconds:.0f} s left"


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]
