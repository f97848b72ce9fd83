"""Advice: which of one's own rows to imitate, which to reinforce, and which to leave out.

`report` measures the base on the rows, sorts them and writes the report; `choice` reads from the
finished runs what the rows of a bucket have gained under each method. Import `advise` from here;
nothing else is for others.
"""

from hybridlib.advise.report import advise

__all__ = ["advise"]
