"""The ostree extension of cfsctl."""

__version__ = "0.1.0"
