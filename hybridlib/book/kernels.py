"""How does one notebook run? Papermill in its own process, kernels over local sockets."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import hybridlib
from hybridlib.book import cache
from hybridlib.book.cache import executed

if TYPE_CHECKING:
    from hybridlib.book.build import Step
    from hybridlib.profiles import Profile

TIMEOUT = 3600  # seconds for one cell; training happens before, in `study.execute_all`
WORKER = "from hybridlib.book.kernels import work; work()"


def run(steps: "list[Step]", profile: "Profile", jobs: int) -> None:
    """Run the stale steps, `jobs` at a time, upstream first; fills in status, seconds and error."""
    executed(profile).mkdir(parents=True, exist_ok=True)
    todo = {step.chapter.name: step for step in steps if step.reason}
    blocked: dict[str, str] = {}
    running: dict[Future[str], tuple[Step, float]] = {}
    live: list[subprocess.Popen] = []
    total, pool = len(todo), ThreadPoolExecutor(max(jobs, 1))
    try:
        while todo or running:
            for name, step in list(todo.items()):
                waiting = {*todo, *(s.chapter.name for s, _ in running.values())}
                if cause := next((a for a in step.chapter.after if a in blocked), None):
                    step.status, step.reason = "skipped", f"upstream {cause} failed"
                    blocked[name] = cause
                    del todo[name]
                elif len(running) < jobs and not waiting & {*step.chapter.after}:
                    del todo[name]
                    running[pool.submit(_execute, step, profile, live)] = step, time.time()
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step, started = running.pop(future)
                step.seconds, step.error = time.time() - started, future.result()
                step.status = "failed" if step.error else step.status
                if step.error:
                    blocked[step.chapter.name] = step.chapter.name
                rest = [*todo.values(), *(s for s, _ in running.values())]
                print(
                    f"[{total - len(rest)}/{total}] {step.chapter.name} {step.status} in "
                    f"{step.seconds:.0f} s ({step.error or step.reason}){_eta(rest, jobs)}",
                    flush=True,
                )
    finally:
        for process in live:
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _execute(step: "Step", profile: "Profile", live: list[subprocess.Popen]) -> str:
    """Run one chapter in a worker process; put its files in place or return the error."""
    folder, name = executed(profile), step.chapter.name
    partial = folder / f"{name}.partial.ipynb"
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="hl") as scratch, tempfile.TemporaryFile("w+") as noise:
        job = {
            "source": str(step.chapter.path),
            "partial": str(partial),
            "scratch": scratch,
            "parameters": step.parameters,
            "cwd": str(hybridlib.ROOT),
        }
        quiet = {
            "TQDM_DISABLE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "IPYTHONDIR": scratch,
            "JUPYTER_RUNTIME_DIR": scratch,
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "HYBRIDLIB_ROOT": str(hybridlib.ROOT),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            text=True,
            stderr=noise,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | quiet,
            start_new_session=True,
        )
        live.append(process)
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        said = process.stdout.read().splitlines()
        process.wait()
        process.stdin.close()
        live.remove(process)
        noise.seek(0)
        last = (noise.read().strip().splitlines() or [""])[-1]
    silent = {"error": f"worker ended with code {process.returncode}: {last}"}
    answer = json.loads(said[-1]) if said else silent
    if error := answer.get("error"):
        return error + (f"; see {partial.relative_to(hybridlib.ROOT)}" if partial.exists() else "")
    outputs = cache.outputs_sha(partial)
    same = bool(step.record) and (step.record["key"], step.record["outputs"]) == (step.key, outputs)
    step.status = "reran, identical" if same else "ran"
    record = {
        "key": step.key,
        "parts": step.parts,
        "parameters": step.parameters,
        "seconds": round(time.time() - started, 1),
        "outputs": outputs,
        "identical": same,
        "provenance": answer["provenance"],
    }
    note = folder / f"{name}.json.partial"
    step.record = record
    note.write_text(json.dumps(record, indent=1))
    partial.replace(folder / f"{name}.ipynb")
    note.replace(folder / f"{name}.json")
    return ""


def _eta(rest: "list[Step]", jobs: int) -> str:
    """How long will the rest take, by what it took last time? "" where nothing is known."""
    known = [step.record["seconds"] for step in rest if step.record]
    return f"; about {sum(known) / len(known) * len(rest) / jobs:.0f} s left" if known else ""


def work() -> None:
    """Body of a worker: run one chapter (a JSON line on stdin), print its provenance or its error.

    The parent holds stdin open; when it goes away, also by kill -9, so does this process, and the
    kernel follows because it watches its own parent.
    """
    job = json.loads(sys.stdin.readline())

    def follow() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from hybridlib import results

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
        answer = {"provenance": results.provenance()}
    except PapermillExecutionError as error:
        # One cell was injected before it, and indices start at 0: this is its place in the source.
        said = (error.evalue.strip().splitlines() or [""])[0]
        answer = {"error": f"cell {error.cell_index}: {error.ename}: {said}"}
    except Exception as error:  # a dead kernel, a timeout: anything must reach the parent as a line
        said = (str(error).strip().splitlines() or [""])[0]
        answer = {"error": f"{type(error).__name__}: {said}"}
    print(json.dumps(answer), flush=True)
    os._exit(0)
