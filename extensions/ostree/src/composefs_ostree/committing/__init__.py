"""Making commits, and repositories that others can pull from.

``commit`` reads a tree (a directory, a tar archive, an image or a dump) and makes of it what a pull of the same commit
would have left; ``export`` writes a commit into an ostree repository on this machine.
"""
