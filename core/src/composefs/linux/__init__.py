"""What Linux offers and the standard library lacks: new files without a name, leases, locks, the mount API.

Every function works on descriptors and on names relative to a directory's descriptor, so that nothing can be moved away
or replaced by a symlink between two steps.  All descriptors are close-on-exec.
"""
