"""What the benchmarks of the engine share: threads of a process, steps of a run in a grid."""

import os

THREADS = os.cpu_count() or 1
RUN_STEPS = 10  # optimizer steps of a run in a grid
