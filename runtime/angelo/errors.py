"""Errors a user can cause; everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """Bad input or environment. The message says what, where, and what to do."""


class MapError(UserError):
    """The map or mask file cannot be used."""


class SequenceError(UserError):
    """The FASTA file cannot be used."""


class ModelFileError(UserError):
    """A coordinate file cannot be used."""


class NoProteinError(ModelFileError):
    """A coordinate file holds no protein."""


class BundleError(UserError):
    """A bundle is missing, damaged, or of another format version."""


class DeviceError(UserError):
    """The requested device is not available."""


class OutputError(UserError):
    """The output folder cannot be used, or the disk is full."""


class NothingBuiltError(Exception):
    """The map was read and searched, but no model came of it (exit code 3)."""


class GraphError(Exception):
    """An array does not fit the ONNX graph it was passed to (a bug, not bad input)."""
