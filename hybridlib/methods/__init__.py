"""Training methods: how an adapter learns, or is made of others that have learnt.

A method is one decorated function, `@METHODS.register(...) def method(job) -> Trained`, in any
module of this folder: all of them are imported here. Import METHODS, Job and Trained from here;
the builders in `train` are for other methods.
"""

from importlib import import_module
from pkgutil import iter_modules

from hybridlib.methods.registry import METHODS, Job, Trained

for module in iter_modules(__path__):
    import_module(f"{__name__}.{module.name}")

__all__ = ["METHODS", "Job", "Trained"]
