"""Where images come from: a registry, a layout, an archive, behind one interface."""
