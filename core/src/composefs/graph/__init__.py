"""What names what in a repository: refs, streams and images, and the objects that each of them keeps.

`names` reads the symlinks, `references` what is in streams and images, `stock` the list of the objects that are there.
Nothing here stops at the first thing that is wrong: garbage collection, fsck and the others each decide what to do
about a Problem.
"""

from composefs.graph.names import Names, read_names
from composefs.graph.problem import Problem
from composefs.graph.references import Graph, Start, refs_of
from composefs.graph.stock import Stock, read_stock

__all__ = ["Graph", "Names", "Problem", "Start", "Stock", "read_names", "read_stock", "refs_of"]
