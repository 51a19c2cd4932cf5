"""One ONNX graph behind a call that checks names, types and shapes; where graphs run.

The only module that imports ONNX Runtime.
"""

import contextlib
import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from angelo.errors import BundleError, DeviceError, GraphError
from angelo.gpus import DRIVER_LIBRARY, driver_loads, gpu_is_visible, gpus_out_of_reach
from angelo.processors import usable_cpus

# Read when the library is loaded, so it cannot wait until a session is made.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

log = logging.getLogger(__name__)

NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip
CUDA = "CUDAExecutionProvider"
#: How to get the GPU build, from a clone: "angelo" on PyPI is another project.
GPU_INSTALL = "pip install './runtime[gpu]'"
#: What ONNX Runtime raises; its classes share no base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, ort_errors.Fail, ort_errors.EPFail, ort_errors.InvalidArgument,
    ort_errors.InvalidGraph, ort_errors.InvalidProtobuf, ort_errors.NoSuchFile,
    ort_errors.NotImplemented, ort_errors.RuntimeException,
)  # fmt: skip
#: Fused products divide by zero (SIGFPE) when an axis is empty, as that of the sequence may be.
DISABLED_OPTIMIZERS = ["MatmulTransposeFusion"]
#: An ONNX model, y = x for one float: the smallest proof that a provider works.
IDENTITY_MODEL = bytes.fromhex(
    "08083a2f0a100a017812017922084964656e746974791201675a0b0a017812060a0408011200620b0a0179"
    "12060a040801120042040a001011"
)


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks run."""

    kind: Literal["cpu", "cuda"]
    """Processor or NVIDIA GPU."""
    index: int = 0
    """Which GPU; 0 for the processor."""

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


CPU = Device("cpu")


def find_devices(text: str) -> tuple[Device, ...]:
    """Devices for ``auto``, ``cpu``, ``cuda`` or ``cuda:N,...``, each tried before use.

    ``auto`` is the first GPU if there is one that works, and the processor if not.

    Raises
    ------
    DeviceError
        If the text is none of these, or a GPU that it names does not work; for ``auto`` if
        this build could use a GPU that is here but out of reach.
    """
    if text.strip().lower() != "auto":
        devices = parse_devices(text)
        for device in devices:
            if (trouble := _trouble(device)) is not None:
                raise DeviceError(trouble)
        return devices
    first = Device("cuda")
    if (trouble := _trouble(first)) is None:
        return (first,)
    if CUDA in ort.get_available_providers() and gpus_out_of_reach() is not None:
        raise DeviceError(trouble)
    level = logging.WARNING if gpu_is_visible() else logging.INFO
    log.log(level, "running on the processor: %s", trouble)
    return (CPU,)


def parse_devices(text: str) -> tuple[Device, ...]:
    """Devices named by ``cpu``, ``cuda``, ``cuda:N`` or ``cuda:N,M,...``, in that order.

    Raises
    ------
    DeviceError
        If the text is none of these, or names a device twice.
    """
    wrong = DeviceError(
        f"--device {text!r} is not understood; give auto, cpu, cuda, or cuda:N with the "
        "number of a GPU (cuda:0,1 for several)"
    )
    kind, colon, numbers = text.strip().lower().partition(":")
    if not colon:
        if kind == "cpu":
            return (CPU,)
        if kind == "cuda":
            return (Device("cuda"),)
        raise wrong
    indices = [word.strip().removeprefix("cuda:") for word in numbers.split(",")]
    is_right = kind == "cuda" and all(word.isascii() and word.isdigit() for word in indices)
    if not is_right:
        raise wrong
    devices = tuple(Device("cuda", int(word)) for word in indices)
    if len(set(devices)) < len(devices):
        raise DeviceError(f"--device {text!r} names a GPU twice; name each once")
    return devices


def _trouble(device: Device) -> str | None:
    """Why the device cannot be used, and what to do about it; None when it works."""
    if device.kind == "cpu":
        return None
    remedy = "or use --device cpu"
    if CUDA not in ort.get_available_providers():
        return (
            f"device {device} needs {CUDA}, which this build of ONNX Runtime lacks; "
            f"install the GPU build ({GPU_INSTALL}) or take the GPU image, {remedy}"
        )
    if (reason := gpus_out_of_reach()) is not None:
        return f"device {device}: {reason}, {remedy}"
    if not driver_loads():  # ONNX Runtime would print as much, in lines of its own
        return (
            f"device {device}: no GPU with NVIDIA's driver is here ({DRIVER_LIBRARY} cannot "
            f"be loaded); install the driver, {remedy}"
        )
    remedy = f"check the driver and the number of the GPU with nvidia-smi, {remedy}"
    try:
        session = _new_session(IDENTITY_MODEL, device, threads=1)
        session.run(None, {"x": np.ones((), np.float32)})
    except ORT_ERRORS as error:
        return f"device {device} does not work ({_first_line(error)}); {remedy}"
    if session.get_providers()[0] != CUDA:  # a missing CUDA library is only logged
        return f"device {device}: {CUDA} did not start; {remedy}"
    return None


def library_version() -> str:
    """Version of ONNX Runtime and the providers it was built with."""
    return f"{ort.__version__} ({', '.join(ort.get_available_providers())})"


class Graph:
    """A loaded ONNX graph; call it with named arrays, get named arrays back."""

    inputs: dict[str, tuple[int | str, ...]]
    """Shape of every input; a name stands for an axis of any size."""
    outputs: tuple[str, ...]
    """Names of the outputs."""

    def __init__(
        self,
        path: Path,
        device: Device = CPU,
        threads: int | None = None,
        *,
        keeps_memory: bool = False,
    ) -> None:
        """Load a graph.

        Parameters
        ----------
        path
            ONNX file.
        device
            Where to run it.
        threads
            For the processor; None: as many as this process may use.
        keeps_memory
            Whether arrays on the processor take memory that earlier ones left, all of it kept
            until the graph is dropped. New memory for large arrays can cost more than the work.

        Raises
        ------
        BundleError
            If the file cannot be loaded, or has an unnamed axis or a type that is not served.
        DeviceError
            If the device does not work.
        """
        self.path = path
        self.device = device
        if device.kind == "cuda" and CUDA not in ort.get_available_providers():
            raise DeviceError(str(_trouble(device)))
        try:
            self._session = _new_session(path, device, threads or usable_cpus(), keeps_memory)
        except ORT_ERRORS as error:
            raise self._load_error(error) from error
        if device.kind == "cuda" and self._session.get_providers()[0] != CUDA:
            raise DeviceError(_trouble(device) or f"{CUDA} did not start for {path.name}")
        ports = self._session.get_inputs()
        self.outputs = tuple(port.name for port in self._session.get_outputs())
        for port in ports:
            if port.type not in NUMPY_TYPES or any(axis in (None, "") for axis in port.shape):
                raise BundleError(
                    f"{path}: input {port.name} is {port.type}{port.shape}; every axis needs a "
                    f"size or a name and the type must be one of {sorted(NUMPY_TYPES)}"
                )
        self.inputs = {port.name: tuple(port.shape) for port in ports}
        self._types = {port.name: port.type for port in ports}

    def _load_error(self, error: Exception) -> Exception:
        if self.device.kind == "cuda" and (trouble := _trouble(self.device)) is not None:
            return DeviceError(trouble)
        return BundleError(
            f"{self.path}: ONNX Runtime {ort.__version__} cannot load it "
            f"({_first_line(error)}); fetch or export the bundle again"
        )

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph.

        Raises
        ------
        GraphError
            When an array does not fit its input.
        DeviceError
            When the device has too little memory.
        """
        self._check(arrays)
        try:
            values = self._session.run(list(self.outputs), arrays)
        except ORT_ERRORS as error:
            if "allocate memory" in str(error) or "out of memory" in str(error):
                raise DeviceError(
                    f"{self.path.name}: {self.device} is out of memory; "
                    "use a device with more, or --device cpu"
                ) from error
            raise GraphError(f"{self.path.name} failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, values, strict=True))

    def _check(self, arrays: dict[str, np.ndarray]) -> None:
        if arrays.keys() != self.inputs.keys():
            raise GraphError(
                f"{self.path.name}: inputs {sorted(arrays)}, wants {sorted(self.inputs)}"
            )
        sizes: dict[str, int] = {}
        for name, shape in self.inputs.items():
            got = arrays[name]
            fits = (
                got.dtype == NUMPY_TYPES[self._types[name]]
                and got.ndim == len(shape)
                and all(
                    size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
                    for axis, size in zip(shape, got.shape, strict=True)
                )
            )
            if not fits:
                raise GraphError(
                    f"{self.path.name}: {name} is {got.dtype}{list(got.shape)}, "
                    f"wants {self._types[name]}{list(shape)} with {sizes}"
                )


class Networks:
    """The graphs of one bundle folder, each loaded when first asked for."""

    def __init__(self, folder: Path, device: Device = CPU, threads: int | None = None) -> None:
        """Graphs in ``folder`` for ``device``; nothing is loaded yet (see ``Graph``)."""
        self.folder = folder
        self.device = device
        self._threads = threads
        self._graphs: dict[str, Graph] = {}

    def open(self, name: str) -> Graph:
        """Return the graph in file ``name``; it stays loaded until closed."""
        if name not in self._graphs:
            log.debug("loading %s on %s", name, self.device)
            self._graphs[name] = Graph(self.folder / name, self.device, self._threads)
        return self._graphs[name]

    def close(self, *names: str) -> None:
        """Drop these graphs and their memory, or all if none is named."""
        for name in names or tuple(self._graphs):
            self._graphs.pop(name, None)

    def __enter__(self) -> "Networks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _new_session(
    model: Path | bytes, device: Device, threads: int, keeps_memory: bool = False
) -> Any:
    """Make an ONNX Runtime session that never falls back to another device in silence."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors only
    # One private arena for each of many sessions keeps every high-water mark: tens of GB.
    options.enable_cpu_mem_arena = keeps_memory
    options.enable_mem_pattern = not keeps_memory  # else one more block, for a call's arrays
    # Idle threads of one session would spin while NumPy or another session works.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.kind == "cuda":
        _preload_cuda()
        cuda_options = {
            "device_id": device.index,
            # A timed search could pick another algorithm, and other digits, in every run.
            "cudnn_conv_algo_search": "HEURISTIC",
            "use_tf32": 0,
            "arena_extend_strategy": "kSameAsRequested",
        }
        providers.insert(0, (CUDA, cuda_options))
    return ort.InferenceSession(
        model,
        options,
        providers=providers,
        enable_fallback=False,
        disabled_optimizers=DISABLED_OPTIMIZERS,
    )


def _preload_cuda() -> None:
    """Load the CUDA libraries that came as Python packages, where there are any."""
    # Kernels made for a GPU newer than the library are kept, but not in the home folder.
    kept = Path(tempfile.gettempdir()) / f"angelo-cuda-{os.getuid()}"
    os.environ.setdefault("CUDA_CACHE_PATH", str(kept))
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        if said.getvalue():
            log.debug("%s", said.getvalue().strip())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
