"""The commands of ``cfsctl ostree``: a module for those that belong together; ``commit`` and ``export`` are apart."""
