"""Programs that mean harm, by class, and programs that mean none: all of our own making.

Each is asked TEST. An attack passes only if it reaches what it is after, or lies with success;
`python -m tests.attacks` judges them all, each before a right program, and prints what happened:
that is how the tests run them as another user and in the weak mode. SIBLINGS are pairs: the second
program passes only if it learns something from the first, which runs beside it.
"""

import json
import os
import textwrap
import time
from pathlib import Path

from hybridlib.sandbox import judge

TEST = "assert f(1) == 2\nassert f(2) == 3"
RIGHT = "def f(x):\n    return x + 1"
MARK = "/tmp/hybridlib-attack-was-here"
LIMIT = 1.0  # of which many make full use


def body(text: str, imports: str = "os, sys, time") -> str:
    """Return a program whose function f(x) has this body."""
    return f"import {imports}\ndef f(x):\n" + textwrap.indent(textwrap.dedent(text).strip(), "    ")


def head(text: str) -> str:
    """Return a program that does this when it is loaded, and whose f(x) is wrong."""
    return "import os, sys, time\n" + textwrap.dedent(text).strip() + "\ndef f(x):\n    return 0"


def syscall(number: str, *arguments: str) -> str:
    """Return a program that is right if the kernel grants this system call."""
    call = ", ".join([number, *arguments])
    return body(
        f"""
        libc = ctypes.CDLL(None, use_errno=True)
        return x + 1 if libc.syscall({call}) >= 0 else 0
        """,
        "ctypes, os",
    )


RESOURCE = {
    "endless loop": body("while True: pass"),
    "endless loop at the start": "while True: pass",
    "endless loop behind a wrong answer": body("while x > 1: pass\nreturn 0"),
    "loop that catches everything": body(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "sleep": body("time.sleep(600)"),
    "waits for input": body("return os.read(0, 1) or 0"),
    "stops itself": body("import signal\nsignal.raise_signal(signal.SIGSTOP)\ntime.sleep(600)"),
    "fork bomb": body("while True: os.fork()"),
    "fork bomb that catches errors": body(
        "while True:\n    try: os.fork()\n    except OSError: pass"
    ),
    "threads without end": body(
        "while True: threading.Thread(target=time.sleep, args=(600,)).start()", "threading, time"
    ),
    "one great allocation": body("return len('x' * 10**10)"),
    "allocations without end": body("a = []\nwhile True: a.append('y' * 10**6)"),
    "maps memory without end": body("a = []\nwhile True: a.append(mmap.mmap(-1, 1 << 24))", "mmap"),
    "a power tower": body("return 9 ** 9 ** 9 ** 9"),
    "the digits of a huge integer": body("sys.set_int_max_str_digits(0)\nreturn str(7 ** 10**7)"),
    "a million files": body(
        """
        for n in range(10**6): open(str(n), 'w').close()
        return x + 1
        """
    ),
    "fills the disk": body(
        """
        for n in range(40):
            with open(str(n), 'wb') as file: file.write(b'x' * 2**19)
        return x + 1
        """
    ),
    "one great file": body("open('a', 'wb').write(b'x' * 10**8)\nreturn x + 1"),
    "a sparse file": body("os.truncate(os.open('a', 66), 10**12)\nreturn x + 1"),
    "descriptors without end": body("a = []\nwhile True: a.append(os.pipe())"),
    "folders without bottom": body("while True:\n    os.mkdir('a')\n    os.chdir('a')"),
    "floods its output": body("while True: os.write(1, b'x' * 65536)"),
    "a pattern that backtracks": body("return re.match('(a+)+$', 'a' * 60 + 'b')", "re"),
    "raises its own limits": body(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))
        return x + 1
        """
    ),
}
CRASH = {
    "reads address zero": body("return ctypes.string_at(0)", "ctypes"),
    "writes over itself": body("ctypes.memset(id(None), 0, 64)", "ctypes"),
    "aborts": body("os.abort()"),
    "recursion": "def f(x): return f(x)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "recursion in the parser": "def f(x): return " + "(" * 20_000 + "x" + ")" * 20_000,
    "nested braces by the thousand": "{" * 40_000,
    "closed braces by the thousand": "x = " + "[" * 20_000 + "]" * 20_000,
    "a long chain of signs": "def f(x): return " + "-" * 45_000 + "x",
    "a long sum": "def f(x): return " + "+".join(["x"] * 20_000),
    "compiles too deep": body("return eval('-' * 10**6 + '1')"),
    "syntax error": "def f(x: return",
    "a NUL byte": RIGHT + "\n\0",
    "a lone surrogate": RIGHT + "\n# \ud800",
    "megabytes of text": RIGHT + "\n#" + "x" * 5_000_000,
    "bad byte code": body(
        "f.__code__ = f.__code__.replace(co_code=bytes([255, 255] * 40), co_consts=())\nreturn f(x)"
    ),
    "frees what lives": body("ctypes.pythonapi.Py_DecRef(ctypes.py_object(type))\n" * 40, "ctypes"),
}
OUTSIDE = {
    "reads the users": body("open('/etc/passwd').read()\nreturn x + 1"),
    "reads this repository": body(f"open({judge.__file__!r}).read()\nreturn x + 1"),
    "reads the environment": body("return x + 1 if 'HOME' in os.environ else 0"),
    "reads /proc": body("open('/proc/self/environ').read()\nreturn x + 1"),
    "lists processes": body("return x + 1 if os.listdir('/proc') else 0"),
    "lists homes": body("os.listdir('/root')\nos.listdir('/home')\nreturn x + 1"),
    "a link to the outside": body("os.symlink('/etc/passwd', 'a')\nopen('a').read()\nreturn x + 1"),
    "climbs by dots": body("open('../' * 40 + 'etc/passwd').read()\nreturn x + 1"),
    "writes to /tmp": body(f"open({MARK!r}, 'w').write('x')\nreturn x + 1"),
    "writes beside its folder": body("open('../x', 'w').write('x')\nreturn x + 1"),
    "writes the library": body("open(os.__file__, 'a').write('')\nreturn x + 1"),
    "leaves by chroot": body("os.chroot('.')\nreturn x + 1"),
    "connects": body("socket.create_connection(('127.0.0.1', 22), 1)\nreturn x + 1", "socket"),
    "makes a socket": body("socket.socket()\nreturn x + 1", "socket"),
    "makes a pair of sockets": body("socket.socketpair()\nreturn x + 1", "socket"),
    "looks a name up": body("socket.getaddrinfo('localhost', 80)\nreturn x + 1", "socket"),
    "runs a program": body("os.execv('/bin/true', ['true'])"),
    "asks a shell": body("return x + 1 if os.system('true') == 0 else 0"),
    "starts a program": body("subprocess.run(['true'])\nreturn x + 1", "subprocess"),
    "traces": syscall("101 if os.uname().machine == 'x86_64' else 117", "0", "0", "0", "0"),
    "mounts": body(
        """
        libc = ctypes.CDLL(None)
        return x + 1 if libc.mount(b'proc', b'.', b'proc', 0, None) == 0 else 0
        """, "ctypes",
    ),
    "asks for namespaces": body("return x + (not ctypes.CDLL(None).unshare(1 << 28))", "ctypes"),
    "joins a namespace": body("return x + (not ctypes.CDLL(None).setns(3, 0))", "ctypes"),
    "a socket by the second numbering": syscall("0x40000000 + 41", "1", "1", "0"),
    "a fork by the second numbering": syscall("0x40000000 + 57"),
    "a program in memory": body("os.memfd_create('a')\nreturn x + 1"),
    "shared memory": body("return x + (ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0)", "ctypes"),
    "makes a device": body("os.mknod('a', 0o60600, 0)\nreturn x + 1"),
    "becomes root": body("os.setuid(0)\nreturn x + 1"),
    "gives a file to root": body("open('a', 'w').close()\nos.chown('a', 0, 0)\nreturn x + 1"),
    "names the machine": body("socket.sethostname('x')\nreturn x + 1", "socket"),
    "sets the clock": body("time.clock_settime(time.CLOCK_REALTIME, 0)\nreturn x + 1"),
    "descriptors that were left": body(
        """
        for n in range(4, 200):
            try: os.fstat(n)
            except OSError: continue
            return x + 1
        """
    ),
    "loads a module of the site": body("import numpy\nreturn x + 1"),
}  # fmt: skip
FORGING = {
    "exit 0": "import sys\nsys.exit(0)",
    "hard exit 0": "import os\nos._exit(0)",
    "exit 0 in the call": body("os._exit(0)"),
    "exit at the end": head("import atexit\natexit.register(os._exit, 0)"),
    "equal to all": "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "an int equal to all": body("return type('A', (int,), {'__eq__': lambda s, o: True})(7)"),
    "another class by its word": body(
        "class A:\n    __class__ = int\n    def __eq__(s, o): return True\nreturn A()"
    ),
    "a class by the name of int": body(
        "A = type('int', (int,), {'__eq__': lambda s, o: True})\nreturn A(7)"
    ),
    "a dict equal to all": body(
        "class dict_(dict):\n    def __eq__(s, o): return True\nreturn dict_()"
    ),
    "a match by the name of it": body("return type('Match', (), {'__eq__': lambda s, o: True})()"),
    "not a number": "def f(x): return float('nan')",
    "patched built-ins": head(
        """
        import builtins
        builtins.type = lambda x: int
        builtins.isinstance = lambda *a: True
        builtins.eval = builtins.bool = lambda *a: True
        """
    ),
    "patched json": head("import json\njson.dumps = lambda v, **k: '[true]'"),
    "patched encoder": head(
        """
        import json.encoder
        json.encoder.JSONEncoder.encode = lambda s, o: '[true]'
        """
    ),
    "patched modules": head("for m in list(sys.modules): sys.modules[m] = None"),
    "patched encode": head(
        """
        for module in [m for n, m in sys.modules.items() if 'hybridlib' in n]:
            for name in dir(module): setattr(module, name, lambda *a, **k: True)
        """
    ),
    "forged answers": "import os\nos.write(3, b'[true]\\n[true]\\n')\nos._exit(0)",
    "forged passes": "import os\nos.write(3, b'\"pass\"\\n\"pass\"\\n')\nos._exit(0)",
    "forged answers before its own": head("os.write(3, b'[0]\\n[0]\\n')"),
    "forged reply": head(
        """
        line = b'{"number": 0, "state": "ended", "lines": ["[2]", "[3]"], "seconds": 0}\\n'
        for n in (1, 2, 3): os.write(n, line * 3)
        """
    ),
    "forged ready line": "import os\nos.write(3, b'\\n\\n[2]\\n[3]\\n')\nos._exit(0)",
    "forged refusal": "import os\nos.write(3, b'mount: no\\n')\nos._exit(1)",
    "too many values": "import os\nos.write(3, b'[2, 3, 4]\\n' * 9)\nos._exit(0)",
    "values in no list": "import os\nos.write(3, b'2\\n3\\n')\nos._exit(0)",
    "a value in a map": "import os\nos.write(3, b'{\"0\": 2}\\n' * 2)\nos._exit(0)",
    "answers to the null descriptor": "import os\nos.dup2(3, 1)\nprint('[2.5]', flush=True)",
    "looks for the answers in frames": body(
        """
        frame, word = sys._getframe(), 'tressa'[::-1]
        while frame:
            if any(word + ' f(1)' in repr(v) for v in frame.f_locals.values()): return x + 1
            frame = frame.f_back
        """
    ),
    "looks for the answers in memory": body(
        """
        seen = [o for o in gc.get_objects() if type(o) is dict and 'steps' in o]
        return x + 1 if '==' in repr([job['steps'] for job in seen]) else 0
        """, "gc",
    ),
    "looks for asserts in memory": body(
        """
        word = ''.join(reversed('(f tressa'))
        for o in gc.get_objects():
            if type(o) in (list, dict, tuple):
                if any(type(s) is str and s.startswith(word) for s in o): return x + 1
        """, "gc",
    ),
    "a trace function": head("sys.settrace(lambda *a: os._exit(0))"),
    "changes its answer afterwards": body(
        """
        global kept
        kept = [0]
        gc.callbacks.append(lambda *a: kept.__setitem__(0, x + 1))
        return kept
        """, "gc",
    ),
    "changes its answer while it is encoded": body(
        """
        kept = [0]
        def later():
            kept[0] = x + 1
            yield 0
        return kept if x > 1 else [kept, later()]
        """
    ),
    "speaks when it is deleted": body(
        """
        class A:
            def __del__(self): os.write(3, b'[true]\\n')
        A()
        return 0
        """
    ),
    "an error that speaks JSON": body("raise ValueError('\"]\\n[2]\\n[3]')"),
    "an error whose text is an exit": body(
        "class E(Exception):\n    def __str__(s): os._exit(0)\nraise E"
    ),
    "redefines assert's error": head("import builtins\nbuiltins.AssertionError = type(None)"),
}  # fmt: skip
JUDGE = {
    "kills all": body("os.kill(-1, 9)\nreturn 0"),
    "kills its parent": body("os.kill(os.getppid(), 9)\nreturn 0"),
    "kills its group": body("os.killpg(0, 9)\nreturn 0"),
    "signals by thread": syscall("234 if os.uname().machine == 'x86_64' else 131", "os.getppid()",
                                 "os.getppid()", "9"),
    "alarms": head("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(0.1)"),
    "a great text": body("return 'x' * 10**7"),
    "a great list": body("return [1] * 10**7"),
    "values without end": body("while True: yield 1"),
    "a value within a value": body("a = []\nfor _ in range(9999): a = [a]\nreturn a"),
    "a list of itself": body("a = []\na.append(a)\nreturn a"),
    "lists that double": body("a = [1]\nfor _ in range(40): a = [a, a]\nreturn a"),
    "a megabyte of brackets": "import os\nos.write(3, b'[' * 10**6 + b'\\n')\nos._exit(0)",
    "deep and closed": "import os\nos.write(3, b'[' * 9999 + b']' * 9999 + b'\\n')\nos._exit(0)",
    "any bytes": "import os\nos.write(3, bytes(range(256)) + b'\\n')\nos._exit(0)",
    "unknown kinds": "import os\nos.write(3, b'[[\"set\", [\"list\"]]]\\n')\nos._exit(0)",
    "a complex that is too large": head(
        "os.write(3, b'[[\"complex\", 1' + b'0' * 999 + b', 1]]\\n')\nos._exit(0)"
    ),
    "digits by the thousand": "import os\nos.write(3, b'[' + b'9' * 200000 + b']\\n')\nos._exit(0)",
    "a set that collides": body("return {n * (2**61 - 1) for n in range(1, 9000)}"),
    "an endless line": "import os\nwhile True: os.write(3, b'x' * 4096)",
    "lines without end": "import os\nwhile True: os.write(3, b'\\n')",
    "a line a moment": head("while True:\n    os.write(3, b'[0]')\n    time.sleep(0.001)"),
    "closes its descriptors": "import os\nos.closerange(0, 64)\nwhile True: pass",
    "an error beyond print": "def f(x): raise ValueError('\\x1b[2J\\ud800\\n' * 50)",
    "an error without end": body(
        "class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E"
    ),
}  # fmt: skip
PERSISTING = {
    "leaves a daemon": head("if os.fork() == 0:\n    os.setsid()\n    time.sleep(600)"),
    "leaves a thread": head(
        "import threading\nthreading.Thread(target=time.sleep, args=(600,)).start()"
    ),
    "leaves a file for the next": body(
        """
        if os.path.exists('kept') or os.path.exists('/job/kept'): return x + 1
        open('kept', 'w').write('x')
        return 0
        """
    ),
    "ignores all signals": head(
        """
        import signal
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        time.sleep(600)
        """
    ),
    "ends late": head("import atexit\natexit.register(time.sleep, 600)"),
    "holds its session": head("os.setpgid(0, 0)\nos.nice(-5)"),
}
REFUSED_CALLS = {
    "watches files": body("return x + (ctypes.CDLL(None).inotify_init() >= 0)", "ctypes"),
    "secret memory": syscall("447", "0"),
    "anonymous files of events": body("os.eventfd(0)\nreturn x + 1"),
    "watches descriptors": body("select.epoll()\nreturn x + 1", "select"),
    "makes a pipe": body("os.pipe()\nreturn x + 1"),
    "a rule set of landlock": syscall("444", "0", "0", "1"),
    "a timer of its own": syscall("222 if os.uname().machine == 'x86_64' else 107", "1", "0",
                                  "ctypes.byref(ctypes.c_long())"),
    "asks what memory is free": syscall("99 if os.uname().machine == 'x86_64' else 179",
                                        "ctypes.byref((ctypes.c_ulong * 32)())"),
    "asks which pages are loaded": body(
        "os.preadv(os.open(os.__file__, 0), [bytearray(9)], 0, os.RWF_NOWAIT)\nreturn x + 1"
    ),
    "drops pages of the library": body(
        "os.posix_fadvise(os.open(os.__file__, 0), 0, 0, os.POSIX_FADV_DONTNEED)\nreturn x + 1"
    ),
    "asks how full the disk is": body("os.statvfs(os.__file__)\nreturn x + 1"),
    "chooses its core": body("os.sched_setaffinity(0, os.sched_getaffinity(0))\nreturn x + 1"),
    "is told of changes": body("fcntl.fcntl(os.open('/', 0), fcntl.F_NOTIFY, 1)\nreturn x + 1",
                               "fcntl, os"),
    "asks for a lease": body("fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)\nreturn x + 1",
                             "fcntl, os"),
    "names its pipe's owner": body("fcntl.fcntl(3, 8, os.getpid())\nreturn x + 1", "fcntl, os"),
}  # fmt: skip
SIBLING_TEXT = "tnemmoc eht fo redaer eht"  # written backwards in what looks for it
SIBLING = RIGHT + f"\n# {SIBLING_TEXT[::-1]}" * 80  # so long that its text has pages of its own


def listener(condition: str, setup: str = "", imports: str = "ctypes, fcntl, gc, os, sys") -> str:
    """Return a program that is right if, within half a second, it hears from another one.

    Args:
        condition: whether it has heard now, over what `setup` defines, `library` (a file that all
            may read) and `libc`.
    """
    return (
        f"import time, {imports}\n{COMMON}{textwrap.dedent(setup).strip()}\ndef heard():\n"
        f"    try: return {condition}\n    except OSError: return False\n"
        "def listen():\n    for _ in range(100):\n        if heard(): return 1\n"
        "        time.sleep(0.005)\nbit = listen()\ndef f(x): return bit and x + 1"
    )


def thief(texts: str) -> str:
    """Return a program that answers as SIBLING does if it finds its text in what is yielded."""
    return f"""import gc, sys
HOLDERS, word = (dict, list, tuple), {SIBLING_TEXT!r}[::-1]
def strings(value, depth):
    if isinstance(value, (bytes, bytearray)): value = bytes(value).decode('latin-1')
    if isinstance(value, str) and word in value and 'def f' in value:
        yield value.replace(chr(92) + 'n', chr(10))
    if depth and hasattr(value, '__dict__'): value = dict(vars(value))
    if depth and isinstance(value, dict): value = list(value.values())
    if depth and isinstance(value, (list, tuple)):
        for part in value: yield from strings(part, depth - 1)
def texts():
{textwrap.indent(textwrap.dedent(texts).strip(), "    ")}
def f(x):
    for text in texts():
        there, end = {{}}, text.find(chr(10) + '# ' + word)
        exec(text[text.rfind('def f', 0, end):end], there)
        return there['f'](x)
"""


def speaker(statement: str, after: float = 0.0) -> str:
    """Return a program that says something for two thirds of a second and is right otherwise."""
    return (
        f"import ctypes, fcntl, os, time\n{COMMON}time.sleep({after})\ntry:\n"
        f"    {statement}\nexcept Exception: pass\ntime.sleep(0.7)\ndef f(x): return x + 1"
    )


COMMON = """import os
libc = ctypes.CDLL(None, use_errno=True)
library = os.open(os.__file__, os.O_RDONLY)
number = dict(zip(('futex', 'memfd'), (202, 319) if os.uname().machine == 'x86_64' else (98, 279)))
"""
LOCKED = """
def locked(file):
    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
"""
LOOK_IN_MEMORY = """
word = 'WORD'[::-1].encode()
def heap():
    libc.sbrk.restype = ctypes.c_void_p
    end = libc.sbrk(0)
    return ctypes.string_at(end - 3 * 2**20 // 2, 3 * 2**20 // 2)
"""
FUTEX = """
import mmap
page = mmap.mmap(library, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
class View(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('object', ctypes.py_object), 
        ('rest', ctypes.c_char * 64)]
view = View()
ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(page), ctypes.byref(view), 0)
word = ctypes.c_void_p(view.data)
"""
SIBLINGS = {
    "runs another program, found in frames": (
        SIBLING,
        thief(
            """
            frame = sys._getframe()
            while frame:
                yield from strings([*frame.f_locals.values(), *frame.f_globals.values()], 4)
                frame = frame.f_back
            """
        ),
    ),
    "runs another program, found among objects": (
        SIBLING, thief("yield from strings([o for o in gc.get_objects() if type(o) in HOLDERS], 3)")
    ),
    "finds another program in freed memory": (
        SIBLING, listener("word in heap()", LOOK_IN_MEMORY.replace("WORD", SIBLING_TEXT)),
    ),
    "a lock on its input": (
        speaker("fcntl.flock(0, fcntl.LOCK_EX)"),
        listener("locked(os.open(os.devnull, os.O_RDONLY))", LOCKED),
    ),
    "a lock on the library": (
        speaker("fcntl.flock(library, fcntl.LOCK_EX)"), listener("locked(library)", LOCKED),
    ),
    "a lock of records on the library": (
        speaker("fcntl.lockf(library, fcntl.LOCK_SH)"),
        listener(
            "struct.unpack('hhqqi', fcntl.fcntl(library, fcntl.F_GETLK, "
            "struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0)))[0] != fcntl.F_UNLCK",
            "import struct",
        ),
    ),
    "flags of a descriptor in common": (
        speaker("fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)"),
        listener("fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND"),
    ),
    "the signal of a descriptor in common": (
        speaker("fcntl.fcntl(0, 10, 12)"), listener("fcntl.fcntl(0, 11) == 12"),
    ),
    "times of a device": (
        speaker("os.utime('/dev/null', (5, 5))\nexcept OSError: pass\ntry:\n    "
                "time.sleep(0.1); os.utime('/dev/null')"),
        listener("os.stat('/dev/null').st_mtime > start", "start = os.stat('/dev/null').st_mtime"),
    ),
    "a futex in a page of the library": (
        speaker("libc.syscall(number['futex'], word, 0, int.from_bytes(page[:4], 'little'), "
                "(ctypes.c_long * 2)(0, 600_000_000), None, 0)").replace("try:", FUTEX + "try:"),
        listener("libc.syscall(number['futex'], word, 1, 1, None, None, 0) == 1", FUTEX),
    ),
    "the opening of a file": (
        speaker("for _ in range(100): time.sleep(0.005), os.close(os.open(os.__file__, 0))"),
        listener(
            "watch >= 0 and select.select([watch], [], [], 0)[0]",
            """
            import select
            watch = libc.inotify_init()
            libc.inotify_add_watch(watch, os.__file__.encode(), 0x20)
            """,
        ),
    ),
    "a lock that ends with a wrong guess": (
        body(
            """
            if x > 1: time.sleep(1)
            try: fcntl.flock(os.open(os.devnull, os.O_RDONLY), fcntl.LOCK_EX)
            except OSError: pass
            return 0
            """, "fcntl, os, time",
        ),
        listener(
            "seen.append(locked(device)) or any(seen) and not seen[-1]",
            LOCKED + "seen, device = [], os.open(os.devnull, os.O_RDONLY)",
        ),
    ),
    "the count of pipes": (
        speaker("for _ in range(15_000): [os.close(n) for n in os.pipe()]", after=0.1),
        listener("own() - before > 4096", """
            def own():
                ends = os.pipe()
                number = os.fstat(ends[0]).st_ino
                [os.close(n) for n in ends]
                return number
            try: before = own()
            except OSError: before = 10**12
            """),
    ),
    "the memory that is free": (
        speaker("kept = bytearray(os.urandom(1)) * (120 << 20)", after=0.1),
        listener(
            "before - free() > 90 << 20",
            """
            def free():
                numbers = (ctypes.c_ulong * 32)()
                return -1 if libc.sysinfo(numbers) else numbers[5]
            before = free()
            """,
        ),
    ),
}  # fmt: skip
CLASSES = {
    "resource": RESOURCE, "crash": CRASH, "reaching outside": OUTSIDE,
    "calls beyond the list": REFUSED_CALLS, "forging the verdict": FORGING,
    "hurting the judge": JUDGE, "persisting": PERSISTING,
}  # fmt: skip
ATTACKS = {name: program for attacks in CLASSES.values() for name, program in attacks.items()}
CONTROLS = {
    "plain": RIGHT,
    "windows lines": RIGHT.replace("\n", "\r\n"),
    "prints": "print('x' * 10**7)\ndef f(x):\n    print(x)\n    return x + 1",
    "lambda": "f = lambda x: x + 1",
    "class inside": "class A:\n    def g(self, x): return x + 1\nf = A().g",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\n"
    "def f(x): return A(x + 1).x",
    "float": "def f(x): return x + 1.0",
    "true": "def f(x): return x + True",
    "imports": "import statistics\ndef f(x): return int(statistics.mean([x, x + 2]))",
    "a library of C": "import hashlib, decimal, zlib\nfrom fractions import Fraction\n"
    "def f(x): return len(hashlib.sha256(bytes(x)).digest()) * 0 + int(decimal.Decimal(x) + 1)",
    "deep recursion": "import sys\nsys.setrecursionlimit(5000)\n"
    "def g(n): return 0 if n == 0 else 1 + g(n - 1)\ndef f(x): return g(3000) - 2999 + x",
    "catches": body("try: 1 / 0\nexcept ZeroDivisionError: return x + 1"),
    "memory within reason": body("return len([0] * 10**7) - 10**7 + x + 1"),
    "text that is not ascii": "def f(größe):\n    return größe + len('ü')",
    "main guard": RIGHT + "\nif __name__ == '__main__':\n    print(f(int(input())))",
    "exits softly at the end of main": RIGHT + "\nif __name__ == '__main__':\n    exit(1)",
    "null device": body("with open(os.devnull, 'w') as null: print(x, file=null)\nreturn x + 1"),
}
LIAR = """
class Liar(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __abs__(self): return 0
    def __hash__(self): return 1
    def __bool__(self): return True
"""
CLOSE = "def close(a, b):\n    return abs(a - b) < 1e-6\n"
POINT = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
STACK = """
class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    @property
    def size(self): return len(self.items)
"""


def liar(kind: str, value: str, imports: str = "collections, datetime, decimal, fractions") -> str:
    """Return a program whose f(x) is of a subclass of this type that is equal to all."""
    return (
        f"import {imports}\nclass A({kind}):\n    def __eq__(s, o): return True\n"
        "    def __ne__(s, o): return False\n    def __hash__(s): return 0\n"
        "    def __reduce__(s): return (int, (2,))\n"
        f"def f(x): return A({value})"
    )


HELPERS = {  # programs that are wrong, and tests with helpers and names
    "a liar before a helper": (LIAR + "def f(x): return Liar(0)", CLOSE + "assert close(f(1), 2)"),
    "redefines the helper": (
        "def close(*a): return True\ndef f(x): return 0", CLOSE + "assert close(f(1), 2)"),
    "redefines the helper in the call": (
        "def f(x):\n    globals()['close'] = lambda *a: True\n    return 0",
        CLOSE + "assert close(f(1), 2)"),
    "rebinds abs": (head("import builtins\nbuiltins.abs = lambda x: 0"),
                    CLOSE + "assert close(f(1), 2)"),
    "shadows abs": ("abs = lambda x: 0\ndef f(x): return 0", CLOSE + "assert close(f(1), 2)"),
    "patches math": (head("import math\nmath.isclose = lambda *a, **k: True"),
                     "import math\nE = 2\nassert math.isclose(f(1), E)"),
    "a liar in a list": (LIAR + "def f(x): return [Liar(0)]",
                         "def same(a, b):\n    return sorted(a) == b\nassert same(f(1), [2])"),
    "a liar kept under a name": (LIAR + "def f(x): return Liar(0)",
                                 "r = f(1)\nok = r == 2\nassert ok"),
    "a liar in a loop": (LIAR + "def f(x): return Liar(0)",
                         "for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y"),
    "a liar in a sum": (LIAR + "def f(x): return Liar(0)", "t = 0\nt += f(1)\nassert t == 2"),
    "a liar appended": (LIAR + "def f(x): return Liar(0)",
                        "out = []\nout.append(f(1))\nassert out == [2]"),
    "a helper that asserts": (LIAR + "def f(x): return Liar(0)",
                              "def check(a, b):\n    assert a == b\ncheck(f(1), 2)"),
    "redefines a helper that asserts": (
        "def check(a, b): pass\ndef f(x): return 0",
        "def check(a, b):\n    assert a == b\ncheck(f(1), 2)"),
    "reads the expected name": (body("return globals().get('expected', 0)"),
                                "expected = 2\nassert f(1) == expected"),
    "reads the case": (body("return globals().get('case', [0] * 9)[1]"),
                       "case = (1, 2)\nassert f(case[0]) == case[1]"),
    "reads all values": (
        body("return max(v for n, v in globals().items() if type(v) is int)"),
        "case = (1, 2)\nassert f(case[0]) == case[1]"),
    "reads the loop": (
        body("return max((v for n, v in globals().items() if type(v) is int), default=0)"),
        "for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y"),
    "calls the reference": (body("return reference(x)"),
                            "def reference(x):\n    return x + 1\nassert f(1) == reference(1)"),
    "rebinds its arguments": (
        body("for n in list(globals()):\n    if n[:6] == '_value': globals()[n] = [0]\nreturn 0"),
        "case = [1]\nassert f(case) == case"),
    "too many to unpack": ("def f(x): return x + 1, 0, 0", "a, b = f(1)\nassert a == 2"),
    "a method that lies": (LIAR + STACK.replace("self.items.pop()", "Liar(0)"),
                           "s = Stack()\ns.push(2)\nassert s.pop() == 2"),
    "ends before the loop does": ("import os\ndef f(x): return x + 1 if x < 2 else os._exit(0)",
                                  "for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y"),
    "forges a script's answers": ("import os\nos.write(3, b'[true]\\n' * 9)\nos._exit(0)",
                                  "e = 2\nassert f(1) == e"),
}  # fmt: skip
LYING_TYPES = {  # programs that are wrong, and asserts on their values
    "text": (liar("str", "'no'"), "assert f(1) == 'yes'"),
    "float": (liar("float", "0"), "assert f(1) == 2.5"),
    "dict": (liar("dict", ""), "assert f(1) == {'a': 2}"),
    "list": (liar("list", ""), "assert f(1) == [2]"),
    "tuple": (liar("tuple", ""), "assert f(1) == (2,)"),
    "set": (liar("set", ""), "assert f(1) == {2}"),
    "bytes": (liar("bytes", ""), "assert f(1) == b'a'"),
    "Decimal": (liar("decimal.Decimal", "0"),
                "from decimal import Decimal\nassert f(1) == Decimal(2)"),
    "Fraction": (liar("fractions.Fraction", "0"),
                 "from fractions import Fraction\nassert f(1) == Fraction(1, 2)"),
    "date": (liar("datetime.date", "1, 1, 1"),
             "import datetime\nassert f(1) == datetime.date(2, 2, 2)"),
    "datetime": (liar("datetime.datetime", "1, 1, 1"),
                 "import datetime\nassert f(1) == datetime.datetime(2, 2, 2)"),
    "timedelta": (liar("datetime.timedelta", "1"),
                  "import datetime\nassert f(1) == datetime.timedelta(2)"),
    "Counter": (liar("collections.Counter", ""), "assert f(1) == {'a': 1}"),
    "named tuple": (liar("collections.namedtuple('N', 'a')", "1"), "assert f(1) == (2,)"),
    "typed named tuple": (
        "import typing\nclass A(typing.NamedTuple):\n    a: int\n"
        "    def __eq__(s, o): return True\ndef f(x): return A(1)", "assert f(1) == (2,)"),
    "dataclass": (POINT + "    def __eq__(s, o): return True\ndef f(x): return P(0)",
                  POINT + "assert f(1) == P(2)"),
    "dataclass with another value": (POINT + "def f(x): return P(0)",
                                     POINT + "assert f(1) == P(2)"),
    "a zone": (
        "import datetime as d\nclass Z(d.tzinfo):\n    def utcoffset(s, t): return d.timedelta(9)\n"
        "def f(x): return d.datetime(1, 1, 1, tzinfo=Z())",
        "import datetime\nassert f(1) == datetime.datetime(2, 2, 2)"),
    "metaclass": (
        "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\n"
        "class A(metaclass=M):\n    def __eq__(s, o): return True\ndef f(x): return A()",
        "assert f(1) == 2"),
    "a class by the name of Decimal": (
        "Decimal = type('Decimal', (), {'__eq__': lambda s, o: True})\n"
        "def f(x): return Decimal()", "from decimal import Decimal\nassert f(1) == Decimal(2)"),
    "a forged fraction": (
        "import os\nos.write(3, b'[[\"Fraction\", \"1e999999999\", null]]\\n')\nos._exit(0)",
        "assert f(1) == 2"),
    "a forged record": (
        "import os\nos.write(3, b'[[\"dataclass\", \"P\"]]\\n')\nos._exit(0)",
        POINT + "assert f(1) == P(2)"),
    "a list for a tuple": ("def f(x): return [1, 2]", "assert f(1) == (1, 2)"),
    "a date for a datetime": ("import datetime\ndef f(x): return datetime.date(1, 1, 1)",
                              "import datetime\nassert f(1) == datetime.datetime(1, 1, 1)"),
    "a text for a Decimal": ("def f(x): return '2'",
                             "from decimal import Decimal\nassert f(1) == Decimal(2)"),
    "a tuple for a dataclass": ("def f(x): return (2,)", POINT + "assert f(1) == P(2)"),
}  # fmt: skip
NAMES = {  # right programs, and tests that are more than asserts on calls
    "expected": (RIGHT, "expected = 2\nassert f(1) == expected"),
    "a constant with a type": (RIGHT, "LIMIT: float = 0.1\nassert abs(f(1) - 2) < LIMIT"),
    "a loop": (RIGHT, "for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y"),
    "a loop over a table": (
        "def f(a, b): return a + b",
        "cases = {'a': ((1, 2), 3)}\nfor key, (args, want) in cases.items():\n"
        "    got = f(*args)\n    assert got == want, key"),
    "tuple unpacking": (RIGHT, "a, b = 1, 2\nassert f(a) == b"),
    "an answer unpacked": ("def f(x): return x, 2", "a, b = f(1)\nassert a == 1\nassert b == 2"),
    "items of a case": (RIGHT, "case = (1, 2)\nassert f(case[0]) == case[1]"),
    "imports": (RIGHT, "import math\nE = math.floor(2.5)\nassert f(1) == E"),
    "a helper": (RIGHT, CLOSE + "assert close(f(1), 2)"),
    "a helper with an assert": (RIGHT, "def check(a, b):\n    assert a == b\ncheck(f(1), 2)"),
    "a helper as an argument": (
        "def f(g, x): return g(x)",
        "def double(x):\n    return 2 * x\nassert f(double, 3) == 6\n"
        "assert f(lambda v: v + 1, 3) == 4"),
    "a branch": (RIGHT, "X = 3\nif X > 2:\n    assert f(X) == 4\nelse:\n    assert f(X) == 0"),
    "answers added up": (RIGHT, "t = 0\nfor i in range(3):\n    t += f(i)\nassert t == 6"),
    "answers collected": (
        RIGHT, "out = []\nfor i in range(3):\n    out.append(f(i))\nassert out == [1, 2, 3]"),
    "an answer as the next argument": (RIGHT, "r = f(1)\nassert r == 2\nr = f(r)\nassert r == 3"),
    "there and back": ("def f(s): return s[::-1]\ng = f",
                       "for s in ['abc', '']:\n    e = f(s)\n    assert g(e) == s"),
    "sorts in place": ("def f(x): x.sort()", "x = [2, 1]\nf(x)\nassert x == [1, 2]"),
    "takes from its argument": ("def f(x): return x.pop()",
                                "x = [2, 1]\nassert f(x) == 1\nassert f(x) == 2"),
    "a name bound anew": ("def f(x): return sorted(x)", "x = [2, 1]\nx = f(x)\nassert x == [1, 2]"),
    "data made by chance": (
        "def f(x): return sorted(x)",
        "import random\nrandom.seed(1)\nx = [random.random() for _ in range(5)]\n"
        "assert f(x) == sorted(x)"),
    "an object of the program": (
        STACK, "s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\nassert s.size == 1\n"
        "assert len(s) == 1\nlast = s.pop()\nassert last == 1"),
    "an object of the tests": (
        "def f(n): return n.next.value",
        "class N:\n    def __init__(self, v):\n        self.value, self.next = v, None\n"
        "n = N(1)\nn.next = N(2)\nassert f(n) == 2"),
    "a dataclass of the tests": (POINT + "def f(x): return P(x)", POINT + "assert f(1) == P(1)"),
    "a function for an answer": (
        "def f(n): return lambda x: x + n", "g = f(2)\nassert g(3) == 5\nassert f(1)(4) == 5"),
    "an iterator for an answer": (
        "def f(n): yield from range(n)", "g = f(2)\nassert next(g) == 0\nassert list(g) == [1]"),
    "an iterator as an argument": ("def f(i): return next(i)",
                                   "i = iter([1, 2])\nassert f(i) == 1\nassert f(i) == 2"),
    "the name of a built-in": ("def sum(a, b): return a * b", "x = 2\nassert sum(x, 3) == 6"),
    "not all is evaluated": (RIGHT, "x = 1\nassert f(x) == 2 or f(9) == 3"),
}  # fmt: skip
TYPES = {  # what a right f() returns, an expression for both sides
    "date": "datetime.date(2020, 2, 29)",
    "datetime": "datetime.datetime(2020, 1, 2, 3, 4, 5, 6)",
    "datetime with a zone": "datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)",
    "time": "datetime.time(23, 59, 1)",
    "timedelta": "datetime.timedelta(days=-1, seconds=5)",
    "Decimal": "decimal.Decimal('1.50')",
    "Fraction": "fractions.Fraction(-3, 4)",
    "complex": "1 + 2j",
    "range": "range(1, 9, 2)",
    "bytes": "b'\\xff'",
    "bytearray": "bytearray(b'a')",
    "frozenset": "frozenset({1, (2, 3)})",
    "deque": "collections.deque([1, 2], 3)",
    "defaultdict": "collections.defaultdict(list, {1: [2]})",
    "Counter": "collections.Counter('aab')",
    "OrderedDict": "collections.OrderedDict([(2, 1), (1, 2)])",
    "namedtuple": "collections.namedtuple('P', 'x y')(1, 2)",
    "dataclass": "dataclasses.make_dataclass('P', ['x'])(1)",
    "nested": "{'a': [(decimal.Decimal(1), datetime.date(1, 1, 1))], 'b': {fractions.Fraction(2)}}",
    "deep": "[{'a': (frozenset({1}), collections.deque([b'a', 2j]))}] * 3",
}
MODULES = "import collections, dataclasses, datetime, decimal, fractions\n"
FALSE_ANSWERS = {**HELPERS, **{f"a false {name}": pair for name, pair in LYING_TYPES.items()}}
TRUE_ANSWERS = NAMES | {
    f"a value of {name}": (f"{MODULES}def f(): return {value}", f"{MODULES}assert f() == {value}")
    for name, value in TYPES.items()
}
OPEN = {  # what the weak mode leaves open
    "reads the users", "reads this repository", "reads /proc", "lists processes", "lists homes",
    "a link to the outside", "climbs by dots", "writes to /tmp", "writes beside its folder",
    "writes the library", "looks a name up",
}  # fmt: skip
GUESS = body("time.sleep(0.5 * (x > 1))\nreturn 0")  # wrong at once, and busy until its end
HONEST = """
import time
began = time.process_time()
while time.process_time() < began + 0.33: pass
def f(x): return x + 1"""
CROWD = [*(body("while True: pass") + f"\n# {n}" for n in range(15)), HONEST]
OPEN_SIBLINGS = {"times of a device"}
SCRATCH = {  # what the weak mode does not give
    "scratch file": body("open('a', 'w').write(str(x + 1))\nreturn int(open('a').read())"),
    "temporary file": body(
        "with tempfile.TemporaryFile() as file: return file.write(b'ab') * 0 + x + 1", "tempfile"
    ),
}


def numbered(programs: list[str]) -> list[str]:
    """Return programs that differ, as equal ones are judged once: each ends in a comment."""
    return [f"{program}\n# {i}" for i, program in enumerate(programs)]


def descendants(process: int) -> list[int]:
    """Return the living processes that this one has started, and theirs; zombies do not count."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(parent) if state not in "XZ" else 0
    family = [process]
    for member in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == member]
    return family[1:]


def left_alive() -> int:
    """Return how many children the zygotes have, after waiting up to two seconds for their end."""
    for _ in range(40):
        count = 0
        for zygote in judge._ZYGOTES.values():
            if zygote.process.poll() is None:
                # Unless it is weak, the zygote itself is a child of the process that was started.
                count += len(descendants(zygote.process.pid)) - (not zygote.weak)
        if not count:
            break
        time.sleep(0.05)
    return count


def main() -> None:
    """Judge all programs, each before a right one, and print what happened as JSON."""
    named_programs = {**ATTACKS, **CONTROLS, **SCRATCH}
    names = list(named_programs)
    if "files" not in judge.protections():
        names = [name for name in names if name not in {*OPEN, *SCRATCH}]
    programs = numbered([text for name in names for text in (named_programs[name], RIGHT)])
    outcomes = judge.judge(programs, [TEST] * len(programs), LIMIT)
    pairs = {**FALSE_ANSWERS, **TRUE_ANSWERS}
    assert len(pairs) == len(FALSE_ANSWERS) + len(TRUE_ANSWERS)
    answers = judge.judge(*map(list, zip(*pairs.values(), strict=True)), LIMIT)
    heard = {}
    for name, (sender, receiver) in SIBLINGS.items():
        if name in OPEN_SIBLINGS and "files" not in judge.protections():
            continue
        heard[name] = judge.judge([sender, receiver], [TEST] * 2, LIMIT)[1].reason
    report = {
        "user": os.geteuid(),
        "protections": judge.protections(),
        "reasons": {name: outcomes[2 * i].reason for i, name in enumerate(names)},
        "next": {name: outcomes[2 * i + 1].reason for i, name in enumerate(names)},
        "answers": {name: answers[i].reason for i, name in enumerate(pairs)},
        "siblings": heard,
        "guess": judge.judge([GUESS], [TEST], LIMIT)[0].seconds,
        "crowd": [outcome.reason for outcome in judge.judge(CROWD, [TEST] * len(CROWD), LIMIT)],
        "alive": left_alive(),
        "written": Path(MARK).exists(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
