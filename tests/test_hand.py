"""The hand of a map: what is counted, what follows from it, and what a build does about it."""

import json
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from scipy.spatial import cKDTree
from tiny_bundle import write_tiny_bundle
from tiny_map import CALPHAS, ORIGIN, SHAPE_ZYX, write_tiny_inputs
from typer.testing import CliRunner

from angelo import hand, pipeline
from angelo.calpha import PointSettings, rotation_from_directions
from angelo.cli import app
from angelo.coordinates import CA, C, N, read_structure
from angelo.density import read_map
from angelo.errors import NothingBuiltError, OutputError
from angelo.hand import HandEvidence, choose_windows, count_links_and_turns, judge_hand, mirror
from angelo.job import BuildJob
from angelo.local_strength import LocalStrength, even_out
from angelo.pipeline import build_model
from angelo.solvent import BLOCK
from angelo.types import Calphas, Density
from angelo.window_plan import WindowSettings, find_solvent_windows, plan_axis

WINDOWS = WindowSettings(
    inputs=("density",),
    channels=("calpha", *(f"{atom}_{axis}" for atom in ("offset", "n", "c") for axis in "xyz")),
    window=16,
    step=1,
    start=0.0,
    margin=2,
    stride=12,
    batch=8,
)
POINTS = PointSettings("votes", 0.5, 1.5, 2.6, 0.5)
FLIP = np.float32([-1, 1, 1])


@pytest.fixture(scope="module")
def globin():
    """N, CA and C of one chain of haemoglobin, Å: 141 residues, most of them in helices."""
    structure = read_structure(Path(__file__).parents[1] / "examples" / "5ni1.cif.gz")
    chain = structure.chain == 0
    return structure.positions[chain][:, [N, CA, C]]


def calphas_of(backbone):
    """Points as a perfect network gives them."""
    n, ca, c = backbone.transpose(1, 0, 2)
    rotation = rotation_from_directions(n - ca, c - ca)
    return Calphas(np.ascontiguousarray(ca), np.ones(len(ca), np.float32), rotation)


def evidence(links, right, left, points=(300, 300)):
    n_points, n_links, n_right, n_left = map(np.array, (points, links, right, left))
    return HandEvidence(n_points, np.float32([0.6, 0.6]), n_links, n_right, n_left)


AS_GIVEN = evidence((120, 60), (80, 0), (0, 12))
MIRRORED = evidence((60, 120), (0, 12), (80, 0))
UNDECIDED = evidence((60, 62), (3, 2), (2, 3))


def test_globin_turns_to_the_right(globin):
    n_links, right, left = count_links_and_turns(calphas_of(globin))
    assert n_links == 140  # every peptide bond, no other
    assert right > 90  # about three quarters of globin is helix
    assert left <= 2


def test_its_mirror_image_turns_to_the_left(globin):
    n_links, right, left = count_links_and_turns(calphas_of(globin))
    assert count_links_and_turns(calphas_of(globin * FLIP)) == (n_links, left, right)


def test_counts_stay_when_the_protein_turns_or_its_residues_are_shuffled(globin):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn = (turn * np.sign(np.linalg.det(turn))).astype(np.float32)
    moved = rng.permutation(globin) @ turn.T + np.float32([5, -70, 300])
    assert count_links_and_turns(calphas_of(moved)) == count_links_and_turns(calphas_of(globin))


def test_four_calphas_of_a_helix_make_one_turn():
    """Ideal α-helix: 1.5 Å rise, 100 degrees, radius 2.3 Å; N and C before and behind."""

    def place(step, radius, ahead):
        angle = np.radians(100) * (step + ahead)
        rise = 1.5 * (step + ahead)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), rise], axis=-1)

    step = np.arange(4)
    backbone = np.stack(
        [place(step, 1.55, -0.28), place(step, 2.3, 0), place(step, 1.65, 0.27)], axis=1
    ).astype(np.float32)
    assert count_links_and_turns(calphas_of(backbone)) == (3, 1, 0)
    assert count_links_and_turns(calphas_of(backbone[:3])) == (2, 0, 0)
    assert count_links_and_turns(calphas_of(backbone[:1])) == (0, 0, 0)


def test_points_without_directions_count_for_nothing(globin):
    points = replace(calphas_of(globin), rotation=None)
    assert count_links_and_turns(points) == (0, 0, 0)


def test_score_of_known_counts():
    # Links: (120 - 60) / sqrt(180); turns in fours: 92 / 4 = 23, of which none is wrong.
    expected = (60 / np.sqrt(180) + np.sqrt(23)) / np.sqrt(2)
    assert AS_GIVEN.score == pytest.approx(expected)
    assert MIRRORED.score == pytest.approx(-expected)
    assert [e.verdict for e in (AS_GIVEN, MIRRORED, UNDECIDED)] == [
        "as given",
        "mirrored",
        "undecided",
    ]
    assert evidence((0, 0), (0, 0), (0, 0)).score == 0


def test_mirror_reverses_x_and_nothing_else():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    density = Density(values, np.float32([1, 2, 3]), np.float32([-4, 5, 6]))
    image = mirror(density)
    np.testing.assert_array_equal(image.values_zyx[1, 2], values[1, 2, ::-1])
    np.testing.assert_array_equal(image.origin, density.origin)
    np.testing.assert_array_equal(image.voxel_size, density.voxel_size)
    np.testing.assert_array_equal(mirror(image).values_zyx, values)
    np.testing.assert_array_equal(density.values_zyx[0, 0], [0, 1, 2, 3])


def labelled_map(backbone):
    """A map whose voxel nearest to C-alpha number i holds i + 1, and a network that reads it.

    The network gives each residue the directions that it has in the protein, whichever way the
    map is flipped: as one that knows one hand only.
    """
    backbone = backbone - backbone.min(axis=(0, 1)) + np.float32(4)
    ca = backbone[:, 1]
    voxel_xyz = np.rint(ca).astype(int)
    shape_zyx = tuple(int(n) + 6 for n in voxel_xyz.max(0)[::-1])
    values = np.zeros(shape_zyx, np.float32)
    values[tuple(voxel_xyz.T[::-1])] = np.arange(1, len(ca) + 1)
    vectors = np.concatenate(
        [np.zeros((len(ca), 3)), backbone[:, 0] - ca, backbone[:, 2] - ca], axis=1
    )
    table = np.concatenate([np.zeros((1, 9)), vectors]).astype(np.float32)

    def run(windows):
        label = np.rint(windows[:, 0]).astype(int)
        calpha = np.where(label > 0, np.float32(9), np.float32(-9))
        return np.concatenate([calpha[:, None], np.moveaxis(table[label], -1, 1)], axis=1)

    return Density(values, np.ones(3, np.float32), np.zeros(3, np.float32)), run


def test_hand_of_a_map_and_of_its_mirror_image(globin):
    density, run = labelled_map(globin)
    told = []
    given = judge_hand(density, WINDOWS, POINTS, run, lambda *step: told.append(step))
    assert given.verdict == "as given"
    assert given.n_right_turns[0] > 40
    assert given.mean_probability[0] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-4)
    flipped = judge_hand(mirror(density), WINDOWS, POINTS, run)
    assert flipped.verdict == "mirrored"
    assert flipped.score == pytest.approx(
        -given.score, abs=1.5
    )  # windows lie a little otherwise
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_empty_map_is_undecided():
    density = Density(np.zeros((20, 20, 20), np.float32), *np.ones((2, 3), np.float32))
    found = judge_hand(density, WINDOWS, POINTS, lambda windows: windows)
    assert (found.verdict, found.score) == ("undecided", 0)


def test_a_network_without_directions_is_not_run(globin):
    density, _ = labelled_map(globin)

    def run(windows):
        raise AssertionError("the network was run")

    found = judge_hand(density, replace(WINDOWS, channels=("calpha",)), POINTS, run)
    assert (found.verdict, found.score) == ("undecided", 0)


def noisy_map(shape, seed=0):
    """Noise that grows along x, with solvent in the first quarter."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32) * np.linspace(1, 2, shape[2]) ** 2
    values[:, :, : shape[2] // 4] = 0
    return Density(values.astype(np.float32), *np.ones((2, 3), np.float32))


def wanted_windows(density):
    plans = [plan_axis(n, WINDOWS) for n in density.values_zyx.shape]
    return ~find_solvent_windows(density.values_zyx, plans, WINDOWS)


def test_windows_come_from_the_denser_half(monkeypatch):
    monkeypatch.setattr(hand, "LEAST_VOLUME", 3 * 12.0**3)
    density = noisy_map((48, 48, 96))
    wanted = wanted_windows(density)
    first, second = choose_windows(density, WINDOWS, wanted)
    assert first.sum() == second.sum() == round(hand.SHARE / 2 * wanted.sum())
    assert not ((first | second) & ~wanted).any()
    assert not (first & second).any()
    columns = np.flatnonzero(wanted.any((0, 1)))
    assert set(np.argwhere(first)[:, 2]) == {columns[-1]}  # the densest
    assert np.argwhere(second)[:, 2].min() >= columns[len(columns) // 2] - 1
    again = choose_windows(density, WINDOWS, wanted)
    np.testing.assert_array_equal(np.stack(again), np.stack([first, second]))


def test_number_of_windows_is_bounded(monkeypatch):
    density = noisy_map((48, 48, 96))
    wanted = wanted_windows(density)
    n_wanted = int(wanted.sum())
    for least, most, expected in (
        (12.0, 20.0, (12, 12)),
        (0.0, 2.0, (2, 2)),
        (n_wanted - 3.0, 1e7, (n_wanted - 3, 3)),
        (1e6, 1e7, (n_wanted, 0)),
    ):
        monkeypatch.setattr(hand, "LEAST_VOLUME", least * 12**3)
        monkeypatch.setattr(hand, "MOST_VOLUME", most * 12**3)
        rounds = choose_windows(density, WINDOWS, wanted)
        assert tuple(int(chosen.sum()) for chosen in rounds) == expected


def test_second_round_only_where_the_first_says_nothing(globin, monkeypatch):
    density, run = labelled_map(globin)
    monkeypatch.setattr(hand, "LEAST_VOLUME", 40 * 12.0**3)
    n_windows = []

    def counting(windows):
        n_windows.append(len(windows))
        return run(windows)

    judge_hand(density, WINDOWS, POINTS, counting)
    first, second = choose_windows(density, WINDOWS, wanted_windows(density))
    assert sum(n_windows) == 2 * first.sum()
    n_windows.clear()
    monkeypatch.setattr(hand, "DECISIVE", 1e9)
    judge_hand(density, WINDOWS, POINTS, counting)
    assert sum(n_windows) == 2 * (first.sum() + second.sum())


def test_empty_space_around_the_protein_costs_nothing(globin, monkeypatch):
    monkeypatch.setattr(hand, "LEAST_VOLUME", 1e9)  # all windows
    density, run = labelled_map(globin)
    fitting = replace(WINDOWS, window=48, multiple=8)
    sizes = []

    def counting(windows):
        sizes.append(windows.shape)
        return run(windows)

    tight = judge_hand(density, fitting, POINTS, run)
    found, seen = [], []
    for n_blocks in (2, 12):
        padded = replace(density, values_zyx=np.pad(density.values_zyx, n_blocks * BLOCK))
        found.append(judge_hand(padded, fitting, POINTS, counting))
        seen.append(sizes.copy())
        sizes.clear()
    assert seen[0] == seen[1]
    for padded in found:
        assert padded.score == tight.score
        np.testing.assert_array_equal(padded.n_points, tight.n_points)


def test_windows_of_both_hands_show_the_map_evened_out():
    density = noisy_map((30, 40, 50))
    strength = LocalStrength(sigma=4.0, reference=0.6, power=0.5, least_gain=0.5, most_gain=3.0)
    evening = replace(WINDOWS, inputs=("even_density",), local_strength=strength)
    seen = []

    def find_nothing(windows):
        seen.append(windows.copy())
        channels = (len(windows), len(WINDOWS.channels), *windows.shape[2:])
        return np.full(channels, -9, np.float32)

    judge_hand(density, evening, POINTS, find_nothing)
    windows = np.concatenate(seen)
    seen.clear()
    evened = even_out(density.values_zyx, density.voxel_size, strength)
    judge_hand(replace(density, values_zyx=evened), WINDOWS, POINTS, find_nothing)
    np.testing.assert_array_equal(windows, np.concatenate(seen))
    assert len(windows) > 2


def test_evidence_adds_up():
    both = AS_GIVEN + MIRRORED
    assert both.score == 0
    assert both.n_points.tolist() == [600, 600]
    assert both.n_links.tolist() == [180, 180]
    unlike = replace(AS_GIVEN, n_points=np.array([100, 0]), mean_probability=np.float32([1, 0]))
    np.testing.assert_allclose((unlike + AS_GIVEN).mean_probability, [0.7, 0.6], atol=1e-6)


@pytest.fixture
def job(tmp_path):
    map_path, fasta = write_tiny_inputs(tmp_path)
    bundle = write_tiny_bundle(tmp_path / "bundle")
    return BuildJob(map_path, fasta, tmp_path / "out", bundle, device="cpu", threads=1)


@pytest.fixture
def find_hand(monkeypatch):
    """Makes the check find what a test needs."""

    def find(found):
        monkeypatch.setattr(pipeline, "judge_hand", lambda *_: found)

    return find


def model_of(folder):
    path = next(p for p in sorted(folder.glob("out*.cif")) if p.name != "out.cif")
    structure = gemmi.read_structure(str(path))
    return np.array([a.atom.pos.tolist() for a in structure[0].all() if a.atom.name == "CA"])


#: How far residues of the tiny bundle's rows are moved to make their geometry a protein's, Å.
NEAR = 1.0


def farthest(places, model):
    return cKDTree(model).query(places.reshape(-1, 3))[0].max()


def mirrored(places):
    """Where the mirror image of the tiny map has what the map has at ``places``."""
    last = ORIGIN[0] + SHAPE_ZYX[2] - 1
    return np.concatenate([ORIGIN[0] + last - places[..., :1], places[..., 1:]], axis=-1)


def test_check_says_that_the_map_looks_mirrored_and_builds_all_the_same(job, find_hand):
    find_hand(MIRRORED)
    result = build_model(job)
    assert any("--hand auto" in note and "tiny.mrc" in note for note in result.notes)
    assert result.summary["hand"] == "mirrored"
    assert result.summary["hand_score"] < -3
    assert farthest(CALPHAS, model_of(result.folder)) < NEAR
    assert not list(result.folder.glob("*mirrored*"))
    for name in ("out.html", "run.json", "angelo.log"):
        assert "--hand auto" in (result.folder / name).read_text()
    assert "score -" in (result.folder / "angelo.log").read_text()


def test_auto_builds_into_the_mirror_image_and_leaves_it_beside_the_model(job, find_hand):
    find_hand(MIRRORED)
    result = build_model(replace(job, hand="auto"))
    assert "out_mirrored.mrc" in result.files
    image, original = read_map(result.folder / "out_mirrored.mrc"), read_map(job.map_path)
    np.testing.assert_array_equal(image.values_zyx, original.values_zyx[:, :, ::-1])
    np.testing.assert_allclose(image.origin, original.origin)
    found = model_of(result.folder)
    assert farthest(mirrored(CALPHAS), found) < NEAR
    assert farthest(CALPHAS, found) > 2
    assert any("_mirrored.mrc" in note for note in result.notes)
    script = (result.folder / "out.cxc").read_text()
    assert "out_mirrored.mrc" in script
    assert "tiny.mrc" not in script
    assert "Built into out_mirrored.mrc" in (result.folder / "out_raw.cif").read_text()


@pytest.mark.parametrize(("found", "n_notes"), [(AS_GIVEN, 0), (UNDECIDED, 1)])
def test_auto_leaves_a_map_that_is_not_surely_mirrored(job, find_hand, found, n_notes):
    find_hand(found)
    result = build_model(replace(job, hand="auto"))
    assert farthest(CALPHAS, model_of(result.folder)) < NEAR
    assert sum("undecided" in note for note in result.notes) == n_notes
    assert not list(result.folder.glob("*mirrored*"))


def test_keep_does_not_look(job, monkeypatch):
    def refuse(*_):
        raise AssertionError("looked at the hand")

    monkeypatch.setattr(pipeline, "judge_hand", refuse)
    result = build_model(replace(job, hand="keep"))
    assert result.summary["hand"] == "not checked"
    assert "hand" not in json.loads((result.folder / "run.json").read_text())["stages"]


def test_toy_networks_have_no_hand(job):
    """The tiny bundle's directions are the same everywhere."""
    assert build_model(job).summary["hand"] == "undecided"


def test_a_stopped_run_goes_on_with_the_hand_it_found(job, find_hand, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    find_hand(MIRRORED)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "refine", killed)
        with pytest.raises(KeyboardInterrupt):
            build_model(replace(job, hand="auto"))
    find_hand(AS_GIVEN)
    result = build_model(replace(job, hand="auto"))
    assert result.summary["hand"] == "mirrored"
    assert farthest(mirrored(CALPHAS), model_of(result.folder)) < NEAR


def test_the_option_is_part_of_what_a_run_is(job, find_hand):
    find_hand(MIRRORED)
    build_model(replace(job, hand="auto"))
    with pytest.raises(OutputError, match="--overwrite"):
        build_model(job)
    result = build_model(replace(job, overwrite=True))
    assert not list(result.folder.glob("*mirrored*"))


def test_nothing_built_points_at_the_hand(job, find_hand, tmp_path):
    find_hand(MIRRORED)
    bundle = write_tiny_bundle(tmp_path / "blind", c_alpha={"points": {"threshold": 0.999}})
    with pytest.raises(NothingBuiltError, match=r"looks like the mirror image.*--hand auto"):
        build_model(replace(job, bundle=bundle))


def test_other_words_are_refused(tmp_path):
    arguments = ["build", str(tmp_path / "m.mrc"), str(tmp_path / "s.fasta"), "--hand", "left"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "left" in result.output
