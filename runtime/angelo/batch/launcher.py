"""What starts angelo: this very program, or an image of it."""

import os
import shlex
import shutil
from collections.abc import Sequence

from angelo.errors import UserError

#: Where a container's runtime says which image this is.
IMAGE_VARIABLES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")


class LauncherError(UserError):
    """What is to go before ``angelo`` is not a command."""


def image_of_this_process() -> str:
    """Apptainer image that this process runs in; empty outside of one."""
    return next((found for name in IMAGE_VARIABLES if (found := os.environ.get(name))), "")


def launcher_for_nodes(given: str, command: Sequence[str], *, gpu: bool) -> tuple[str, ...]:
    """Words that start ``angelo`` on a node of the cluster.

    Parameters
    ----------
    given
        What goes before ``angelo``, as for a shell: "apptainer exec --nv angelo.sif".
    command
        What starts this very program: used outside of an image when nothing is given.
    gpu
        Whether tasks have a GPU, which an image has to be told.

    Raises
    ------
    LauncherError
        If the words cannot be told apart.
    """
    if given:
        return _words(given)
    if image := image_of_this_process():
        return ("apptainer", "exec", *(["--nv"] if gpu else []), image, "angelo")
    return tuple(command)


def launcher_here(given: str, command: Sequence[str]) -> tuple[str, ...]:
    """Words that start ``angelo`` on this machine; see :func:`launcher_for_nodes`.

    Raises
    ------
    LauncherError
        If the words cannot be told apart, or there is no such program.
    """
    if not given:
        return tuple(command)
    words = _words(given)
    if shutil.which(words[0]) is None:
        raise LauncherError(f"--launcher {given!r}: there is no program {words[0]} here")
    return words


def _words(given: str) -> tuple[str, ...]:
    try:
        return (*shlex.split(given), "angelo")
    except ValueError as error:
        raise LauncherError(f"--launcher {given!r} cannot be understood ({error})") from None
