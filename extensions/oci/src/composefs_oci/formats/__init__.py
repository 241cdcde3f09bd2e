"""The documents and names of container images: a module a format, bytes in and out, no input or output."""
