"""Generated questions: small counterparts of GSM8K, MATH and MBPP, without a network or a download.

Public are `FAMILIES`, `SPLITS`, `documents`, `raw_rows` and `stream`; `families` holds
the kinds of question, and a new one is a decorated class there. Everything is drawn from seeds, so
that the same rows come out on every machine, and splits never share a question.
"""

from hybridlib.tiny.families import FAMILIES
from hybridlib.tiny.tasks import SPLITS, documents, raw_rows, stream

__all__ = ["FAMILIES", "SPLITS", "documents", "raw_rows", "stream"]
