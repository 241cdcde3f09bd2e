"""composefs for Python: the repository, its formats, and the host for fetchers."""

__version__ = "0.1.0"
