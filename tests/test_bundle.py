"""Bundles: what is read, what is refused and how, where they are looked for."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import read_manifest, write_manifest, write_tiny_bundle

from angelo import bundle as bundle_module
from angelo.bundle import (
    bundle_folders,
    find_bundle,
    list_bundles,
    load_bundle,
    missing_folders,
)
from angelo.errors import BundleError
from angelo.manifest import CropSettings, CubeSettings


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def only(tmp_path, monkeypatch):
    """Two ANGELO_MODELS folders, and nothing with the installation or a checkout."""
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("ANGELO_MODELS", os.pathsep.join(map(str, places)))
    monkeypatch.setattr(bundle_module.importlib.resources, "files", lambda _: tmp_path / "no")
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "elsewhere" / "bundle.py"))
    return places


def spoil(folder, keys, value=...):
    """Set (or, by default, delete) one key of the manifest."""
    manifest = read_manifest(folder)
    section = manifest
    for key in keys[:-1]:
        section = section[key]
    if value is ...:
        del section[keys[-1]]
    else:
        section[keys[-1]] = value
    write_manifest(folder, manifest)


def test_sections_become_settings(tiny):
    bundle = load_bundle(tiny)
    assert (bundle.name, bundle.licence, bundle.folder) == ("tiny", "MIT", tiny)
    assert bundle.c_alpha.windows.window == 16 and bundle.c_alpha.points.method == "votes"
    assert bundle.gnn.cube == CubeSettings(side=3, spacing=1.0) and bundle.gnn.crop is None
    assert bundle.gnn.start_features == ("aa_logits", "probability")
    assert bundle.language.tokens["A"] == 4
    assert bundle.chains.min_existence == bundle.gnn.min_existence == 0.5
    assert bundle.chains.max_bond == 2.6
    assert bundle.map.spectrum is None


def test_optional_sections(tmp_path):
    spectrum = {
        "shell_width": 0.01,
        "amplitudes": [1, 0.5, 0.25],
        "reference_shells": [1, 2],
        "max_gain": 8,
    }
    crop = {"size": 200, "keep": 50, "repeats": 3}
    folder = write_tiny_bundle(
        tmp_path,
        language=None,
        map={"spectrum": spectrum},
        gnn={"crop": crop, "start": None, "start_features": [], "start_frames": "random"},
        files={},
    )
    spoil(folder, ["files"], {p.name: record(p) for p in folder.glob("*.onnx")})
    bundle = load_bundle(folder)
    assert bundle.language is None and bundle.gnn.sequence is None and bundle.gnn.start is None
    assert bundle.gnn.crop == CropSettings(**crop)
    np.testing.assert_array_equal(bundle.map.spectrum.amplitudes, np.float32([1, 0.5, 0.25]))
    assert bundle.map.spectrum.reference_shells == (1, 2)


def record(path):
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_same_seed_same_bundle(tmp_path):
    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = contents(write_tiny_bundle(tmp_path / "a"))
    assert first == contents(write_tiny_bundle(tmp_path / "b"))
    assert first != contents(write_tiny_bundle(tmp_path / "c", seed=1))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["format"], "other", "format is not 'angelo-bundle'"),
        (["format_version"], 2, "format_version is 2, but this angelo reads 1"),
        (["extra"], 1, "extra is not a key of this format"),
        (["licence"], ..., "licence is missing"),
        (["gnn", "cube", "size"], 3, "gnn.cube.size is not a key"),
        (["gnn", "cube", "side"], ..., "gnn.cube.side is missing"),
        (["gnn", "cube", "side"], "13", "gnn.cube.side is '13', wants a whole number"),
        (["gnn", "cube", "side"], 13.0, "gnn.cube.side is 13.0, wants a whole number"),
        (["gnn", "rounds"], True, "gnn.rounds is True, wants a whole number"),
        (["gnn", "rounds"], 0, "gnn.rounds is not positive"),
        (["gnn"], None, "gnn is None, wants an object"),
        (["gnn", "layers"], "layer_00.onnx", "gnn.layers is 'layer_00.onnx', wants a list"),
        (["gnn", "layers"], [], "gnn.layers is empty"),
        (
            ["gnn", "layers"],
            ["other.onnx"],
            r"gnn.layers\[0\] names 'other.onnx', which is not",
        ),
        (["gnn", "start_frames"], "guessed", "gnn.start_frames is 'guessed', wants one of"),
        (["gnn", "sequence"], None, "gnn.sequence must be null where language is null"),
        (["gnn", "frames"], "mirrored", "gnn.frames is 'mirrored'"),
        (["gnn", "min_existence"], 1.5, "gnn.min_existence is not in"),
        (["gnn", "crop"], {"size": 2, "keep": 3, "repeats": 1}, "gnn.crop wants"),
        (["map", "voxel_size"], 0, "map.voxel_size is not positive"),
        (["map", "voxel_size"], float("nan"), "map.voxel_size is nan, wants a number"),
        (["c_alpha", "window"], ..., "c_alpha.window is missing"),
        (["c_alpha", "stride"], 13, "c_alpha: stride 13 must be"),
        (["c_alpha", "channels"], ["calpha"], "c_alpha.channels lacks n_x"),
        (["c_alpha", "points", "method"], "best", "c_alpha.points.method is 'best'"),
        (["language", "tokens"], {"AA": 1}, "language.tokens wants single letters"),
        (["language", "overlap"], 40, "language.overlap is not in"),
        (["chains", "max_bond"], 0.5, "chains: max_bond is 0.5"),
        (["chains", "min_existence"], 0.5, "chains.min_existence is not a key"),
        (["residue_types"], ["ALA", "ALA"], "residue_types is empty or repeats"),
        (["files", "../evil.onnx"], {"sha256": "", "bytes": 0}, "is not a plain file name"),
    ],
)
def test_wrong_manifests_are_refused_in_one_line(tiny, keys, value, said):
    spoil(tiny, keys, value)
    with pytest.raises(BundleError, match=said) as caught:
        load_bundle(tiny)
    assert "\n" not in str(caught.value) and str(tiny / "bundle.json") in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_what_is_no_manifest_is_refused(tiny, text):
    (tiny / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"bundle\.json: "):
        load_bundle(tiny)


def test_damaged_file_is_named(tiny):
    path = tiny / "heads.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"heads\.onnx: sha256 is .* again"):
        load_bundle(tiny)
    load_bundle(tiny, verify=False)


def test_truncated_and_missing_files_are_named_even_unverified(tiny):
    path = tiny / "heads.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"heads\.onnx: \d+ bytes, but"):
        load_bundle(tiny, verify=False)
    path.unlink()
    with pytest.raises(BundleError, match=r"heads\.onnx: cannot be read \(No such file"):
        load_bundle(tiny, verify=False)


def test_folder_and_name_find_a_bundle_the_first_folder_wins(only):
    folder = write_tiny_bundle(only[1] / "tiny")
    assert find_bundle(folder) == find_bundle(str(folder)) == find_bundle("tiny") == folder
    earlier = write_tiny_bundle(only[0] / "tiny")
    assert find_bundle("tiny") == earlier
    assert bundle_folders() == tuple(only)


def test_unknown_name_says_where_and_what(only):
    write_tiny_bundle(only[1] / "tiny")
    with pytest.raises(BundleError, match=rf"'big' not found .*{only[0]}.*found: tiny\."):
        find_bundle("big")
    with pytest.raises(BundleError, match=r"no bundle\.json there"):
        find_bundle(only[0] / "big")


def test_models_of_the_checkout_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("ANGELO_MODELS", raising=False)
    (tmp_path / "runtime" / "angelo").mkdir(parents=True)
    monkeypatch.setattr(
        bundle_module, "__file__", str(tmp_path / "runtime" / "angelo" / "bundle.py")
    )
    monkeypatch.setattr(
        bundle_module.importlib.resources, "files", lambda _: tmp_path / "runtime" / "angelo"
    )
    folder = write_tiny_bundle(tmp_path / "models" / "tiny")
    assert find_bundle("tiny") == folder
    with_package = write_tiny_bundle(tmp_path / "runtime" / "angelo" / "models" / "tiny")
    assert find_bundle("tiny") == with_package


def test_an_environment_in_a_checkout_has_its_own_models_only(tmp_path, monkeypatch):
    monkeypatch.delenv("ANGELO_MODELS", raising=False)
    (tmp_path / "runtime" / "angelo").mkdir(parents=True)
    write_tiny_bundle(tmp_path / "models" / "tiny")
    package = tmp_path / "environment" / "site-packages" / "angelo"
    monkeypatch.setattr(bundle_module, "__file__", str(package / "bundle.py"))
    monkeypatch.setattr(bundle_module.importlib.resources, "files", lambda _: package)
    folder = write_tiny_bundle(package / "models" / "tiny")
    assert [listing.folder for listing in list_bundles()] == [folder]


def test_list_has_sound_and_broken_bundles(only):
    write_tiny_bundle(only[0] / "good", accuracy={"recall": 0.9})
    bad = write_tiny_bundle(only[1] / "bad")
    spoil(bad, ["licence"])
    good_one, bad_one = list_bundles()
    assert (good_one.name, good_one.licence, good_one.error) == ("good", "MIT", None)
    assert good_one.accuracy == {"recall": 0.9} and good_one.row[4] == '{"recall": 0.9}'
    graphs = Path(only[0] / "good").glob("*.onnx")
    assert good_one.n_bytes == sum(path.stat().st_size for path in graphs)
    assert "licence is missing" in bad_one.error and "unusable" in str(bad_one)


def test_the_list_says_where_each_lies_and_which_is_hidden(only):
    folders = [write_tiny_bundle(place / "tiny") for place in only]
    first, second = list_bundles()
    assert [first.row[0], second.row[0]] == ["tiny", "tiny (hidden)"]
    assert [first.row[-1], second.row[-1]] == list(map(str, folders))


def test_folders_that_are_missing_or_have_no_home(only, monkeypatch):
    assert missing_folders() == ()
    monkeypatch.setenv("ANGELO_MODELS", os.pathsep.join([str(only[0]), "/no/such", "~/models"]))
    monkeypatch.setattr("pathlib.Path.expanduser", no_home)
    assert missing_folders() == (Path("/no/such"), Path("~/models"))
    with pytest.raises(BundleError, match="~"):
        find_bundle("~/models/tiny")


def no_home(_):
    raise RuntimeError("Could not determine home directory.")


def test_an_empty_list(only):
    assert list_bundles() == ()
