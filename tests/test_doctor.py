"""The doctor: what it finds here, and what it says of broken things."""

import pytest
from tiny_bundle import write_tiny_bundle

from angelo import doctor


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """A folder with one bundle, the only one there is."""
    folder = tmp_path / "models"
    write_tiny_bundle(folder / "tiny")
    monkeypatch.setattr("angelo.bundle.bundle_folders", lambda: (folder,))
    return folder


def checks_of(folder):
    return {check.name: check for check in doctor.examine(folder)}


def test_a_sound_machine(tmp_path):
    checks = checks_of(tmp_path)
    assert not [check for check in checks.values() if check.fix and check.is_fatal]
    assert checks["Python"].found.startswith("3.")
    assert "CPUExecutionProvider" in checks["ONNX Runtime"].found
    assert "checksums agree" in checks["Bundle tiny"].found


def test_a_damaged_bundle_is_named(tmp_path, models):
    heads = models / "tiny" / "heads.onnx"
    content = bytearray(heads.read_bytes())
    content[-1] ^= 1
    heads.write_bytes(content)
    check = checks_of(tmp_path)["Bundle tiny"]
    assert check.is_fatal and "heads.onnx" in check.fix


def test_no_bundle_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("angelo.bundle.bundle_folders", lambda: ())
    check = checks_of(tmp_path)["Bundles"]
    assert check.is_fatal and "ANGELO_MODELS" in check.fix


def test_full_disk_and_old_python(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2**20})()
    monkeypatch.setattr("angelo.doctor.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("angelo.doctor.sys.version_info", (3, 9, 1))
    checks = checks_of(tmp_path)
    assert checks["Disk"].is_fatal and checks["Disk"].fix
    assert "3.11" in checks["Python"].fix


@pytest.mark.parametrize(
    ("cpuinfo", "found", "needs_fix"),
    [
        ("flags : fpu avx avx2 avx512f\n", "avx512f", False),
        ("flags : fpu avx\n", "avx", True),
        ("flags : fpu\n", "no AVX", True),
        ("Processor : ARM\n", "cores", False),
    ],
)
def test_vector_units(tmp_path, monkeypatch, cpuinfo, found, needs_fix):
    flags = next((set(x.split()) for x in cpuinfo.splitlines() if x.startswith("flags")), set())
    monkeypatch.setattr("angelo.doctor._cpu_flags", lambda: flags)
    check = checks_of(tmp_path)["Processor"]
    assert found in check.found
    assert bool(check.fix) == needs_fix
    assert not (check.fix and check.is_fatal)
