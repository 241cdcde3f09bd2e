"""Static deltas: a new commit as what it adds to nothing, or to another commit, in a few large files.

A delta is a *superblock*, which holds the new commit and lists the rest; *parts*, which are small programs that write
objects out of a blob and of files of the older commit; and *fallbacks*, objects that are fetched one by one after all.
:mod:`finding` chooses and checks one, the pull has its parts carried out by the workers that fetch its files
(:mod:`parts`), awaits what :mod:`applying` says they will bring, and fetches what they do not.

Whatever is read is checked by a digest that is known before: the superblock by the summary or the index (where one
lists it), its commit by the id that is pulled, each part by the superblock, and each object by its own id.

Source: "Static deltas" in libostree's manual and ostree-repo-static-delta-private.h, which describes the types.
"""
