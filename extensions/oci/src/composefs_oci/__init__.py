"""The OCI extension of cfsctl."""

__version__ = "0.1.0"
