"""Maps: every way a file may say the same thing, resampling that moves nothing, refusals."""

import bz2
import gzip
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from angelo.density import (
    MapSettings,
    apply_mask,
    average_half_maps,
    box_lengths,
    prepare_density,
    read_map,
    read_mask,
    resample,
    write_map,
)
from angelo.errors import MapError, OutputError
from angelo.spectrum import Spectrum, contrast
from angelo.types import Density

#: Same place in every file: voxel (z, y, x), Å and origin.
SHAPE_ZYX = (5, 6, 7)
VOXEL = np.array([1.1, 0.9, 1.25], np.float32)


def small_values(kind: str = "f4") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, SHAPE_ZYX).astype(kind)


def map_bytes(values_zyx, *, order="<", axes=(1, 2, 3), mode=2, **fields) -> bytes:
    """A file made by hand: the reader is not tested against the writer of the same package."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    stored = values_zyx.transpose([3 - axes[2], 3 - axes[1], 3 - axes[0]])
    header["nz"], header["ny"], header["nx"] = stored.shape
    header["mz"], header["my"], header["mx"] = values_zyx.shape
    counts = values_zyx.shape[::-1]
    header["cella"] = tuple(float(v * n) for v, n in zip(VOXEL, counts, strict=True))
    header["cellb"] = (90, 90, 90)
    header["mode"], header["ispg"] = mode, 1
    header["mapc"], header["mapr"], header["maps"] = axes
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0]
    extra = fields.pop("extra", b"")
    header["nsymbt"] = len(extra)
    for name, value in fields.items():
        header[name] = value
    stored = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder(order))
    return header.tobytes() + extra + stored.tobytes()


@pytest.fixture
def read(tmp_path):
    def read_bytes(content: bytes, **options) -> Density:
        path = tmp_path / "a.mrc"
        path.write_bytes(content)
        return read_map(path, **options)

    return read_bytes


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")]
)
def test_modes_and_byte_orders(read, order, mode, kind):
    density = read(map_bytes(small_values(kind), order=order, mode=mode, extra=b"s" * 80))
    np.testing.assert_array_equal(density.values_zyx, small_values())
    assert density.values_zyx.dtype == np.float32
    np.testing.assert_allclose(density.voxel_size, VOXEL, rtol=1e-6)


@pytest.mark.parametrize(
    "axes", [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
)
def test_axis_orders_put_every_voxel_in_the_same_place(read, axes):
    start_xyz = np.array([-3, 4, 11])
    starts = dict(
        zip(("nxstart", "nystart", "nzstart"), start_xyz[np.array(axes) - 1], strict=True)
    )
    density = read(map_bytes(small_values(), axes=axes, **starts))
    np.testing.assert_array_equal(density.values_zyx, small_values())
    np.testing.assert_allclose(density.voxel_size, VOXEL, rtol=1e-6)
    np.testing.assert_allclose(density.origin, start_xyz * VOXEL, rtol=1e-6)


def test_origin_is_xyz_whatever_the_axis_order(read, caplog):
    content = map_bytes(small_values(), axes=(3, 1, 2), origin=(1.5, -2.25, 30), nxstart=9)
    np.testing.assert_array_equal(read(content).origin, [1.5, -2.25, 30])
    assert "ORIGIN is used" in caplog.text


@pytest.mark.parametrize("origin", [(np.nan, 0, 0), (1e30, 0, 0), (0, 0, 0)])
def test_origin_never_set_gives_way_to_start(read, origin):
    density = read(map_bytes(small_values(), origin=origin, nystart=2))
    np.testing.assert_allclose(density.origin, [0, 1.8, 0], rtol=1e-6)


def test_absurd_start_is_ignored(read):
    density = read(map_bytes(small_values(), nystart=2, nzstart=10**8))
    np.testing.assert_array_equal(density.origin, [0, 0, 0])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_files(read, pack):
    np.testing.assert_array_equal(
        read(pack(map_bytes(small_values()))).values_zyx, small_values()
    )


def test_imod_unsigned_bytes(read):
    content = bytearray(map_bytes(small_values("i1") + np.int8(100), mode=0))
    stamped = small_values("u1") + np.uint8(100)
    content[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    np.testing.assert_array_equal(read(bytes(content)).values_zyx, stamped)


def test_wrong_byte_order_stamp_and_missing_symmetry_records(read):
    content = bytearray(map_bytes(small_values(), order=">", nsymbt=80))
    content[212:216] = b"\x44\x44\0\0"
    np.testing.assert_array_equal(read(bytes(content)).values_zyx, small_values())


def test_voxel_size_option_replaces_a_missing_one(read):
    content = map_bytes(small_values(), cella=(0, 0, 0), nxstart=2)
    density = read(content, voxel_size=1.5)
    np.testing.assert_array_equal(density.voxel_size, [1.5, 1.5, 1.5])
    np.testing.assert_array_equal(density.origin, [3, 0, 0])


def with_value(value) -> np.ndarray:
    values = small_values()
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (map_bytes(small_values(), cella=(0, 7, 7)), r"CELLA x is 0.*--voxel-size"),
        (map_bytes(small_values(), my=0), r"my is 0.*--voxel-size"),
        (map_bytes(small_values(), cella=(7000, 7, 7)), r"cannot be right.*--voxel-size"),
        (map_bytes(small_values(), cella=(70, 70, 70)), r"0\.2 to 3 Å; give .*--voxel-size"),
        (map_bytes(small_values(), cellb=(90, 90, 120)), r"CELLB.*90, 90, 120"),
        (map_bytes(small_values(), mapc=2), r"MAPC, MAPR, MAPS are \[2, 2, 3\]"),
        (map_bytes(small_values(), mode=4), "MODE 4 holds complex numbers"),
        (map_bytes(small_values(), ispg=401), "stack of 5 sections"),
        (map_bytes(small_values(), ispg=0, mz=1), "stack of 5 sections"),
        (map_bytes(small_values()[:1]), "an image of 7 x 6 x 1"),
        (map_bytes(small_values())[:-10], "cut short: 830 bytes.*7 x 6 x 5 voxels need 840"),
        (gzip.compress(map_bytes(small_values()))[:-20], "damaged or cut short"),
        (bz2.compress(map_bytes(small_values()))[:-20], "damaged or cut short"),
        (b"\x1f\x8b" + b"no gzip" * 9, "damaged or cut short"),
        (b"ATOM      1  N   MET A   1 " * 100, "not an MRC or CCP4 map: the header"),
        (b"", "not an MRC or CCP4 map: shorter"),
        (map_bytes(with_value(np.nan)), "1 voxels are NaN or infinite"),
        (map_bytes(with_value(np.inf)), "1 voxels are NaN or infinite"),
        (map_bytes(np.full(SHAPE_ZYX, 3, "f4")), "every voxel is the same"),
    ],
)
def test_refusals_in_one_line(read, content, message):
    with pytest.raises(MapError, match=message) as refusal:
        read(content)
    assert "\n" not in str(refusal.value)
    assert "a.mrc" in str(refusal.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MapError, match=r"none\.mrc: cannot be read \(No such file"):
        read_map(tmp_path / "none.mrc")


@pytest.mark.parametrize("size", [-1.0, 0.1, 3.5, 10.5])
def test_voxel_size_option_is_checked(read, size):
    with pytest.raises(MapError, match=rf"--voxel-size {size:g}: .* voxels of 0\.2 to 3 Å"):
        read(map_bytes(small_values()), voxel_size=size)


@pytest.mark.parametrize("origin", [(0.3, -7.7, 1e3), (-3.3, 0.9, 2.5), (0, 0, 0)])
def test_written_maps_come_back(tmp_path, origin):
    density = Density(small_values(), VOXEL, np.array(origin, np.float32))
    path = tmp_path / "out.mrc"
    write_map(path, density)
    again = read_map(path)
    np.testing.assert_array_equal(again.values_zyx, density.values_zyx)
    np.testing.assert_allclose(again.voxel_size, VOXEL, rtol=1e-6)
    np.testing.assert_array_equal(again.origin, density.origin)
    first = path.read_bytes()
    write_map(path, density)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["out.mrc"]
    assert mrcfile.validate(path)


def test_on_grid_origin_is_written_to_the_start_fields_too(tmp_path):
    origin = np.array([-3, 1, 2], np.float32) * VOXEL
    write_map(tmp_path / "out.mrc", Density(small_values(), VOXEL, origin))
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        assert mrc.nstart.tolist() == (-3, 1, 2)


def test_unwritable_place_is_named(tmp_path):
    density = Density(small_values(), VOXEL, np.zeros(3, np.float32))
    with pytest.raises(OutputError, match=r"none/out\.mrc: cannot be written"):
        write_map(tmp_path / "none" / "out.mrc", density)


def blob(shape_zyx, voxel, origin, centre, sigma=2.2) -> Density:
    """A Gaussian blob, Å; sigma keeps it below the Nyquist frequency of 1.5 Å voxels."""
    axes = [
        o + v * np.arange(n) for o, v, n in zip(origin, voxel, shape_zyx[::-1], strict=True)
    ]
    x, y, z = (
        np.exp(-((a - c) ** 2) / (2 * sigma**2)) for a, c in zip(axes, centre, strict=True)
    )
    values = z[:, None, None] * y[:, None] * x
    return Density(values.astype(np.float32), np.float32(voxel), np.float32(origin))


def centroid(density: Density) -> np.ndarray:
    values = density.values_zyx.astype(np.float64)
    index = []
    for others in ((0, 1), (0, 2), (1, 2)):  # x, y, z
        profile = values.sum(others)
        index.append(np.average(np.arange(len(profile)), weights=profile))
    return density.origin + density.voxel_size * np.array(index)


@pytest.mark.parametrize("voxel_size", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_resampling_moves_nothing(voxel_size, seed):
    rng = np.random.default_rng(seed)
    voxel = rng.uniform(0.65, 1.45, 3)
    shape = tuple(int(n) for n in np.ceil(rng.uniform(28, 40, 3) / voxel[::-1]))
    origin = rng.uniform(-500, 500, 3).astype(np.float32)
    size = voxel * shape[::-1]
    centre = origin + size / 2 + rng.uniform(-1, 1, 3)
    before = blob(shape, voxel, origin, centre)
    after = resample(before, voxel_size)
    np.testing.assert_array_equal(after.origin, before.origin)
    np.testing.assert_allclose(after.voxel_size, voxel_size, rtol=0.005 + 1e-6)
    # Worst over 400 seeds: 3e-5 Å (float32), and 2e-5 of the peak in the values.
    np.testing.assert_allclose(centroid(after), centre, atol=1e-3)
    expected = blob(after.values_zyx.shape, after.voxel_size, origin, centre)
    np.testing.assert_allclose(after.values_zyx, expected.values_zyx, atol=1e-4)
    # The new grid reaches the last old voxel, and at most one new voxel farther.
    overhang = (np.array(after.values_zyx.shape[::-1]) - 1) * after.voxel_size - (
        np.array(shape[::-1]) - 1
    ) * before.voxel_size
    assert (overhang > -1e-3).all()
    assert (overhang < after.voxel_size).all()


def test_resampling_of_a_constant_is_the_constant():
    density = Density(np.full((20, 21, 22), 7, np.float32), VOXEL, np.zeros(3, np.float32))
    np.testing.assert_allclose(resample(density, 0.77).values_zyx, 7, rtol=1e-5)


def test_resampling_to_the_same_size_returns_the_values_untouched():
    density = Density(small_values(), np.full(3, 1.004, np.float32), np.zeros(3, np.float32))
    again = resample(density, 1.0)
    assert again.values_zyx is density.values_zyx
    np.testing.assert_array_equal(again.voxel_size, density.voxel_size)


@pytest.mark.parametrize("n", [30, 97, 256, 601])
@pytest.mark.parametrize("ratio", [0.31, 0.5, 0.73, 0.997, 1.37, 2.9])
def test_box_is_little_longer_than_the_map(n, ratio):
    n_box, n_new = box_lengths(n, ratio, 1.0)
    assert n + 8 <= n_box <= max(1.25 * n, n + 64)
    assert abs(n_box * ratio / n_new - 1) <= 0.005 + 1e-9
    for factor in (2, 3, 5, 7, 11):
        while n_box % factor == 0:
            n_box //= factor
    assert n_box == 1


def noise_map(shape=(24, 25, 26)) -> Density:
    values = np.random.default_rng(1).normal(5, 3, shape).astype(np.float32)
    return Density(values, np.full(3, 1.0, np.float32), np.zeros(3, np.float32))


def test_prepared_density_has_mean_0_and_scale_1():
    plain = prepare_density(
        noise_map(), MapSettings(1.0, None, "standard_deviation")
    ).values_zyx
    assert plain.mean() == pytest.approx(0, abs=1e-5)
    assert plain.std() == pytest.approx(1, abs=1e-5)
    by_contrast = prepare_density(noise_map(), MapSettings(1.0, None, "contrast")).values_zyx
    assert contrast(by_contrast) == pytest.approx(1, abs=1e-5)


def test_prepared_density_does_not_depend_on_gain_and_offset():
    spectrum = Spectrum(0.05, np.linspace(1, 0.1, 10, dtype=np.float32), (1, 5), 8.0)
    settings = MapSettings(1.3, spectrum, "contrast")
    one = noise_map()
    other = Density(one.values_zyx * 1000 - 77, one.voxel_size, one.origin)
    a, b = (prepare_density(density, settings).values_zyx for density in (one, other))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_mask_and_half_maps(tmp_path):
    density = noise_map()
    values = np.zeros_like(density.values_zyx)
    values[3:9] = 1
    write_map(tmp_path / "mask.mrc", Density(values, density.voxel_size, density.origin))
    mask = read_mask(tmp_path / "mask.mrc")
    masked = apply_mask(density, mask).values_zyx
    np.testing.assert_array_equal(masked[3:9], density.values_zyx[3:9])
    assert not masked[9:].any()
    assert not masked[:3].any()
    np.testing.assert_array_equal(
        average_half_maps(density, apply_mask(density, mask)).values_zyx[9:],
        density.values_zyx[9:] / 2,
    )


def test_masks_that_are_no_masks(tmp_path):
    path = tmp_path / "mask.mrc"
    write_map(path, noise_map())
    with pytest.raises(MapError, match="runs from 0 to 1, but this runs from -"):
        read_mask(path)
    write_map(path, Density(np.zeros((9, 9, 9), np.float32), VOXEL, np.zeros(3, np.float32)))
    with pytest.raises(MapError, match="0 everywhere"):
        read_mask(path)


@pytest.mark.parametrize(
    ("shape", "voxel", "origin", "message"),
    [
        ((24, 25, 27), 1.0, 0.0, "the mask has 27 x 25 x 24 voxels, the map 26 x 25 x 24; "),
        ((24, 25, 26), 1.1, 0.0, r"voxels of \(1\.1, 1\.1, 1\.1\) Å, the map \(1, 1, 1\) Å"),
        ((24, 25, 26), 1.0, 5.0, r"its origin at \(5, 5, 5\) Å, the map \(0, 0, 0\) Å"),
    ],
)
def test_other_grids_are_refused(shape, voxel, origin, message):
    mask = Density(
        np.ones(shape, np.float32),
        np.full(3, voxel, np.float32),
        np.full(3, origin, np.float32),
    )
    with pytest.raises(MapError, match=message):
        apply_mask(noise_map(), mask)


def test_files_are_read_as_mrcfile_reads_them(tmp_path: Path):
    path = tmp_path / "theirs.mrc"
    with mrcfile.new(path, small_values()) as mrc:
        mrc.voxel_size = (1.1, 0.9, 1.25)
        mrc.header.origin = (4, 5, 6)
    density = read_map(path)
    np.testing.assert_array_equal(density.values_zyx, small_values())
    np.testing.assert_allclose(density.voxel_size, VOXEL, rtol=1e-6)
    np.testing.assert_array_equal(density.origin, [4, 5, 6])
