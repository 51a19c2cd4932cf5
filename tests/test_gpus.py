"""GPUs that are here but out of reach: one line says it and what to do; nothing crawls."""

import pytest

from angelo import doctor, gpus, session
from angelo.errors import DeviceError
from angelo.session import CPU, find_devices


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without GPU, driver or container; tests add what they need."""
    for name in (*gpus.APPTAINER_VARIABLES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "KERNEL_DRIVER", tmp_path / "version")
    monkeypatch.setattr(gpus, "OCI_MARKERS", (tmp_path / "containerenv",))
    monkeypatch.setattr(gpus, "DRIVER_LIBRARY", "libcuda-of-the-tests.so.1")
    return tmp_path


def test_a_machine_without_gpu(machine):
    (machine / "nvidiactl").touch()
    assert not gpus.gpu_is_visible()
    assert gpus.gpus_out_of_reach() is None


def test_apptainer_without_nv(machine, monkeypatch):
    (machine / "nvidia0").touch()
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/angelo.sif")
    assert "--nv" in gpus.gpus_out_of_reach()


def test_docker_without_gpus(machine):
    (machine / "version").touch()
    assert gpus.gpus_out_of_reach() is None  # no container
    (machine / "containerenv").touch()
    assert "--gpus all" in gpus.gpus_out_of_reach()


def test_no_container_and_no_driver_library(machine):
    (machine / "nvidia1").touch()
    assert "libcuda-of-the-tests.so.1" in gpus.gpus_out_of_reach()


def test_a_driver_that_loads(machine, monkeypatch):
    (machine / "nvidia0").touch()
    monkeypatch.setattr(gpus, "DRIVER_LIBRARY", "libc.so.6")
    assert gpus.gpu_is_visible()
    assert gpus.gpus_out_of_reach() is None


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_hidden_on_purpose(machine, monkeypatch, hidden):
    for name in ("nvidia0", "version", "containerenv"):
        (machine / name).touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not gpus.gpu_is_visible()
    assert gpus.gpus_out_of_reach() is None


def test_a_gpu_that_may_not_be_opened(machine, monkeypatch):
    (machine / "nvidia0").touch()

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(gpus.os, "open", refuse)
    assert not gpus.gpu_is_visible()


@pytest.fixture
def gpu_build(machine, monkeypatch):
    """The GPU build in an Apptainer container that sees a GPU and has no driver."""
    (machine / "nvidia0").touch()
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/angelo-gpu.sif")
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [session.CUDA])


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_the_gpu_build_stops(gpu_build, device):
    with pytest.raises(DeviceError, match=r"--nv.*, or use --device cpu$"):
        find_devices(device)
    assert find_devices("cpu") == (CPU,)


def test_the_doctor_says_so(gpu_build, machine):
    check = next(check for check in doctor.examine(machine) if check.name == "GPU")
    assert check.is_fatal and "--nv" in check.fix


def test_the_cpu_build_warns_and_goes_on(machine, monkeypatch, caplog):
    monkeypatch.setattr(
        session.ort, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    assert find_devices("auto") == (CPU,)
    assert not caplog.records
    (machine / "nvidia0").touch()
    assert find_devices("auto") == (CPU,)
    assert "GPU image" in caplog.text and caplog.records[0].levelname == "WARNING"


def test_cuda_keeps_its_kernels_out_of_the_home_folder(monkeypatch, tmp_path):
    environment = {}
    monkeypatch.setattr(session.os, "environ", environment)
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(session.ort, "preload_dlls", lambda: None, raising=False)
    session._preload_cuda()
    assert environment["CUDA_CACHE_PATH"].startswith(str(tmp_path))
    environment["CUDA_CACHE_PATH"] = "kept"
    session._preload_cuda()
    assert environment["CUDA_CACHE_PATH"] == "kept"
