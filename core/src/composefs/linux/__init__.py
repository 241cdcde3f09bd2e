"""What Linux offers and the standard library lacks; each module names the system calls that it makes.

What is done to files takes descriptors, and names relative to a directory's descriptor, so that nothing can be moved
away or replaced by a symlink between two steps.  All descriptors are close-on-exec.
"""
