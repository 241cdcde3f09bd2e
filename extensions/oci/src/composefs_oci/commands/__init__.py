"""The commands of ``cfsctl oci``: a module for those that belong together."""
