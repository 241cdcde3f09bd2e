"""Static deltas: a new commit as what it adds to nothing, or to another commit, in a few large files.

A delta is a *superblock*, which holds the new commit and lists the rest; *parts*, which are small programs that write
objects out of a blob and of files of the older commit; and *fallbacks*, objects that are fetched one by one after all.
:mod:`finding` chooses and checks one, :mod:`applying` has its parts carried out in worker processes, and the pull that
follows takes the objects as it takes those of a base commit, and fetches what the delta did not bring.

Whatever is read is checked by a digest that is known before: the superblock by the summary or the index (where one
lists it), its commit by the id that is pulled, each part by the superblock, and each object by its own id.

Source: "Static deltas" in libostree's manual and ostree-repo-static-delta-private.h, which describes the types.
"""
