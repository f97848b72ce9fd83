"""From notebooks to a book: which chapters have to run, running them, and the pages around them.

`build.build` makes the whole book, `plan.catalogue` lists its chapters, and `cache.imported` says
which modules some code depends on. `kernels` and `pages` are for `build` alone, since they need the
steps of its plan. Nothing is handed on here: the function `build` would hide its module.
"""
