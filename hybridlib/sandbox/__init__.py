"""A sandbox for Python programs that a model wrote: they compute, and reach nothing else.

`judge.judge(programs, tests)` runs each program and says whether its asserts hold,
`judge.refusals(tests)` names tests that cannot be judged, and `judge.protections()` lists what the
programs are kept from; nothing else may be imported by other
parts of the package, and in here `zygote`, `isolation`, `seccomp` and `wire` import the standard
library and each other alone. It is our own code because no library isolates a thousand untrusted
programs a minute without a container service, keeps the expected values out of their process, and
works for root and for an ordinary user alike.

This file imports nothing: the zygote loads it in a bare interpreter.
"""
