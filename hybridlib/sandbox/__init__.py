"""Programs that a model writes, run where they can reach nothing: no file, no network, no other.

`judge.judge(programs, tests)` is the one way in. The zygote imports this package in a bare
interpreter, so this file imports nothing, and `zygote`, `isolation`, `seccomp` and `wire` import the
standard library and each other alone.
"""
