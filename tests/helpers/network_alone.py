"""SavedModels that hold the network alone: tracing what a server does takes ten seconds."""

from kmatting.exporting.graph.serving import Server
from kmatting.networks.network import PLAIN_SIGNATURE

_whole = Server.signatures


def signatures(self):
    """Stands in for `Server.signatures`."""
    return {PLAIN_SIGNATURE: _whole(self)[PLAIN_SIGNATURE]}
