"""Modules of commands that can be called: `kmatting.train(...)`.

`kmatting.train` is a module, since `python -m kmatting.train` runs it, and Python puts a module in
the place of anything else of that name as soon as it is imported. So the module itself is callable,
in whatever order a program imports.
"""

import inspect
import types
from typing import Any

__all__ = ["CallableModule"]


class CallableModule(types.ModuleType):
    """A module that is called as its function of the same name.

    Examples:
        >>> sys.modules[__name__].__class__ = CallableModule
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the function, for notebooks and editors."""
        return inspect.signature(self._function)

    @property
    def _function(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])
