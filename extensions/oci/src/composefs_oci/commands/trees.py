"""``dump``, ``compute-id`` and ``mount``: an image as one tree."""

from __future__ import annotations

from composefs_ext import commands
from composefs_ext.errors import NotFoundError
from composefs_oci.held import find_config
from composefs_oci.image import layers_of, naming_the_tree, stage_layers
from composefs_oci.variants import mountable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import Transforms

__all__ = ["compute_id", "dump", "mount"]


def dump(request: Request, core: Core) -> dict[str, Any]:
    """Print an image's tree as a composefs dump."""
    text = core.staging.new_name("text")
    with core.progress("tree"):
        staged, transforms = _stage(request, core)
        with naming_the_tree():
            size = core.image_dump(staged, text, transforms=transforms).result()
    core.output_file(text)
    return {"size": size}


def compute_id(request: Request, core: Core) -> dict[str, Any]:
    """Print the id that an image has, whether or not it was made."""
    with core.progress("tree"):
        staged, transforms = _stage(request, core)
        with naming_the_tree():
            image = core.image_digest(staged, transforms=transforms).result()["id"]
    core.output(f"{image}\n")
    return {"id": image}


def mount(request: Request, core: Core) -> dict[str, Any]:
    """Mount the image that a pull has made."""
    name, bootable = request.arguments["image"], bool(request.get("bootable"))
    images = find_config(core, name).images
    keys = mountable(core.repo, bootable=bootable)
    image = next((images[key] for key in keys if key in images), None)
    if image is None:
        raise NotFoundError(
            f"{name} has no {'bootable ' * bootable}image here",
            hint=f"pull it again{' with --bootable' * bootable}",
            subject=name,
        )
    return commands.mount(request, core, image)


def _stage(request: Request, core: Core) -> tuple[str, Transforms]:
    """Describe the tree of the image that the request names; return the staged dump and what is to be done to it."""
    config = find_config(core, request.arguments["image"], request.get("verity"))
    tree = stage_layers(core, layers_of(core, config))
    return tree.dump, tree.transforms(bootable=bool(request.get("bootable")), xattrs=request.arguments["xattrs"])
