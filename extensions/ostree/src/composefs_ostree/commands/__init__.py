"""The commands of ``cfsctl ostree``: a module for those that belong together; making repositories is apart."""
