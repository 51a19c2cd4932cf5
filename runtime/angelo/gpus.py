"""NVIDIA GPUs that this machine shows, and whether their driver is within reach.

A container sees the device files of its host, but has the driver's libraries only if it was
started so: then runs would go to the processor, many times slower, and nobody would know why.
"""

import ctypes
import os
from pathlib import Path

#: Where device files of GPUs are: nvidia0, nvidia1, ...
DEVICES = Path("/dev")
#: There when the kernel has NVIDIA's driver; containers see it too.
KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
#: Comes with the driver, never with CUDA.
DRIVER_LIBRARY = "libcuda.so.1"
#: Set by Apptainer and by its predecessor in their containers.
APPTAINER_VARIABLES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
#: There in containers of Docker and of Podman.
OCI_MARKERS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def gpu_is_visible() -> bool:
    """Whether there is a GPU that this process may open and is not told to leave alone.

    Batch systems forbid to open those of others, and hide all with ``CUDA_VISIBLE_DEVICES``.
    """
    return not _is_hidden() and any(map(_opens, DEVICES.glob("nvidia[0-9]*")))


def gpus_out_of_reach() -> str | None:
    """Why GPUs that are here cannot be used, and what to do; None if they can, or none is here.

    None too where ``CUDA_VISIBLE_DEVICES`` hides them on purpose.
    """
    is_visible = gpu_is_visible()
    if is_visible and driver_loads():
        return None
    if any(os.environ.get(name) for name in APPTAINER_VARIABLES):
        if is_visible:
            return (
                "an NVIDIA GPU is visible, but the container was started without its driver; "
                "start it with --nv (apptainer run --nv ...)"
            )
    elif any(marker.exists() for marker in OCI_MARKERS):
        if is_visible or (KERNEL_DRIVER.exists() and not _is_hidden()):
            return (
                "this machine has an NVIDIA driver, but the container was given no GPU; start "
                "it with --gpus all (Docker) or --device nvidia.com/gpu=all (Podman)"
            )
    elif is_visible:
        return (
            f"an NVIDIA GPU is visible, but not its driver: {DRIVER_LIBRARY} cannot be loaded; "
            "install the NVIDIA driver, or add its folder to LD_LIBRARY_PATH"
        )
    return None


def _is_hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def driver_loads() -> bool:
    """Whether the library of NVIDIA's driver is here."""
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return False
    return True
