"""Checkpoints of other programs: tensors and settings are read, code in them never runs."""

import argparse
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from angelo_export.weights import CheckpointError

#: Classes beside tensors and built-in values in which programs keep settings and figures:
#: none of them does more than hold values. NumPy's function has had two names.
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
)


def load_foreign(path: Path) -> Any:
    """Content of a torch file, mapped into memory where its format allows.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is damaged, or asks for anything else to be loaded.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check the path"
        ) from None
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except UnpicklingError as error:
        if (refused := re.search(r"GLOBAL (\S+)", str(error))) is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path}: asks for {refused[1]} to be loaded, which could run any code, and is "
            "refused. Fetch the file again from its source; if you trust it, save its weights "
            "alone with the program it is from: "
            "torch.save({'model': checkpoint['model']}, file)"
        ) from None
    except Exception as error:  # damaged zips and pickles raise many types
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a torch file, or a damaged or truncated one ({type(error).__name__}); "
        "fetch it again"
    )
