"""The hand of a map: whether it, or its mirror image, looks like protein to the network.

A reconstruction from projections may come out as the mirror image of the molecule, and nothing
in the map's file says so. The network has seen L-amino acids and right-handed helices only. On
the mirror image of protein it still finds most C-alphas with about the same probability, but
the directions to N and C that it predicts there fit together less often, and where they do,
the chain turns the wrong way. Both are counted in a part of the map and in its mirror image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy.spatial import cKDTree

from angelo.calpha import PointSettings, find_calphas
from angelo.frames import backbone_atoms
from angelo.types import BackboneFrames, Calphas, Density
from angelo.window_plan import WindowSettings, fit_windows, plan_axis
from angelo.windows import Network, Progress, input_volumes, run_windows

#: What is done about the hand: say it; build the better one; do not look.
HandOption = Literal["check", "auto", "keep"]
#: What was found: the map, or its mirror image, is right.
Verdict = Literal["as given", "mirrored", "undecided"]

#: Ending of the file that holds the mirror image, if that is what was built into.
MIRRORED_ENDING = "_mirrored.mrc"
#: Part of the search that each of two rounds may cost, both hands together...
SHARE = 0.15
#: ...but windows that keep this much are run if there are as many, and never more than that,
#: Å³ for each hand: a globular protein of 220 and one of 730 kDa, if all of it were protein.
LEAST_VOLUME, MOST_VOLUME = 300_000.0, 1_000_000.0
#: Distances of C-alphas that may be neighbours in a chain, Å (trans peptides have 3.8).
CALPHA_STEP = (2.9, 4.6)
#: Longest predicted C-N distance of neighbours, Å (a peptide bond has 1.33).
MAX_BOND = 2.6
#: C-N distance of neighbours whose directions fit together, Å.
FITTING_BOND = 2.0
#: Longest distance between first and last C-alpha of a helical turn, Å (α has 5.0, 3-10 6.0;
#: strands have 10).
TURN_LENGTH = 6.6
#: Virtual dihedral angles of the four C-alphas of a helical turn, degrees (α has 50).
TURN_ANGLES = (20.0, 90.0)
#: Turns of a helix share three of their four residues, so four of them count as one.
TURNS_PER_HELIX_TURN = 4
_NO_POINTS = Calphas(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
#: Score from which on the hand is decided, standard deviations.
DECISIVE = 3.0


@dataclass(frozen=True, slots=True)
class HandEvidence:
    """What was counted in a part of a map (first) and in its mirror image (second)."""

    n_points: Int64[np.ndarray, " 2"]
    """C-alphas found."""
    mean_probability: Float32[np.ndarray, " 2"]
    """Of those points; too much alike for both hands to count."""
    n_links: Int64[np.ndarray, " 2"]
    """Pairs of neighbours whose predicted C and N are ``FITTING_BOND`` or closer."""
    n_right_turns: Int64[np.ndarray, " 2"]
    """Helical turns that are right-handed, as those of L-amino acids are."""
    n_left_turns: Int64[np.ndarray, " 2"]
    """Helical turns that are left-handed."""

    @property
    def turns(self) -> tuple[int, int]:
        """Turns for and against the hand of the map, those of its mirror image included."""
        right, left = self.n_right_turns, self.n_left_turns
        return int(right[0] + left[1]), int(left[0] + right[1])

    @property
    def score(self) -> float:
        """Evidence that the map is right as it is, in standard deviations; negative: mirrored.

        Two differences of counts, each over the square root of their sum, taken together as
        independent ones: fitting links in the map and in its mirror image, and turns for and
        against the hand of the map. The same map with the other hand has minus this score.
        """
        turns = _excess(*(n / TURNS_PER_HELIX_TURN for n in self.turns))
        links = _excess(float(self.n_links[0]), float(self.n_links[1]))
        return (turns + links) / math.sqrt(2)

    @property
    def verdict(self) -> Verdict:
        """The hand, where the score is decisive."""
        if abs(self.score) < DECISIVE:
            return "undecided"
        return "as given" if self.score > 0 else "mirrored"

    def __add__(self, other: "HandEvidence") -> "HandEvidence":
        n_points = self.n_points + other.n_points
        total = self.n_points * self.mean_probability + other.n_points * other.mean_probability
        return HandEvidence(
            n_points,
            (total / np.maximum(n_points, 1)).astype(np.float32),
            self.n_links + other.n_links,
            self.n_right_turns + other.n_right_turns,
            self.n_left_turns + other.n_left_turns,
        )

    @property
    def summary(self) -> dict[str, str | float]:
        """Verdict and score, for the summary of a run."""
        return {"hand": self.verdict, "hand_score": round(self.score, 1)}

    def __str__(self) -> str:
        right, wrong = self.turns
        return (
            f"hand: {self.verdict}, score {self.score:+.1f} (decisive from {DECISIVE:g}); "
            f"{right} helical turns for the map as given, {wrong} for its mirror image; "
            f"{self.n_links[0]} and {self.n_links[1]} fitting links"
        )


def describe_hand(option: HandOption, evidence: HandEvidence, map_name: str) -> str | None:
    """Tell a person what was found and what to do; None if the hand needs no attention."""
    found = f"score {evidence.score:.1f}, decisive from {DECISIVE:g} on"
    if evidence.verdict == "mirrored" and option == "auto":
        return (
            f"{map_name} has the wrong hand ({found}), so its mirror image was built into. The "
            f"model overlays on that, the file ending in {MIRRORED_ENDING}, not on {map_name}"
        )
    if evidence.verdict == "mirrored":
        return (
            f"{map_name} looks like the mirror image of a protein ({found}), so that the model "
            "cannot be right. Build again with --hand auto, or flip the map along one axis"
        )
    if evidence.verdict == "undecided" and option == "auto":
        return (
            f"the hand of {map_name} is undecided ({found}): it was built into as given. Build "
            "into its mirror image as well, and compare"
        )
    return None


def _excess(right: float, wrong: float) -> float:
    """Difference of two counts in standard deviations, if both had one expectation."""
    return (right - wrong) / math.sqrt(max(1.0, right + wrong))


def mirror(density: Density) -> Density:
    """Return the mirror image along x: voxels in reverse order, the box where it is.

    What is built into it has the coordinates of the mirrored map, and overlays on that only.
    """
    return replace(density, values_zyx=np.ascontiguousarray(density.values_zyx[:, :, ::-1]))


def judge_hand(
    density: Density,
    windows: WindowSettings,
    points: PointSettings,
    run: Network,
    progress: Progress | None = None,
) -> HandEvidence:
    """Search a part of a map and of its mirror image, and a second part if that says nothing.

    Parameters
    ----------
    density
        As the search for C-alphas gets it.
    run
        The C-alpha network, see ``angelo.windows.run_windows``. One that does not predict
        directions cannot tell the hand, and is not run.
    """
    if not {"n_x", "c_x"} <= set(windows.channels):
        return _count([_NO_POINTS, _NO_POINTS])
    part, windows, wanted = fit_windows(density, windows)
    rounds = choose_windows(part, windows, wanted)
    inputs = input_volumes(part, windows)
    # What is made of a mirror image is the mirror image of what is made of the map.
    images = (inputs, [volume[:, :, ::-1] for volume in inputs])
    n_steps = 2 * sum(int(chosen.sum()) for chosen in rounds)
    done = 0
    evidence = _count([_NO_POINTS, _NO_POINTS])
    for chosen in rounds:
        found = []
        for image, where in zip(images, (chosen, chosen[:, :, ::-1]), strict=True):
            tell = _shifted(progress, done, n_steps)
            voxels = run_windows(part, windows, run, points.threshold, tell, where, image)
            found.append(find_calphas(voxels, points))
            done += int(chosen.sum())
        evidence += _count(found)
        if evidence.verdict != "undecided":
            break
    return evidence


def _count(found: Sequence[Calphas]) -> HandEvidence:
    """Count in the points of a map and of its mirror image."""
    counts = np.array([(len(c), *count_links_and_turns(c)) for c in found], np.int64)
    means = [c.probability.mean() if len(c) else 0 for c in found]
    n_points, n_links, n_right, n_left = counts.T
    return HandEvidence(n_points, np.array(means, np.float32), n_links, n_right, n_left)


def choose_windows(
    density: Density,
    settings: WindowSettings,
    wanted: Bool[np.ndarray, "wz wy wx"],
) -> tuple[Bool[np.ndarray, "wz wy wx"], Bool[np.ndarray, "wz wy wx"]]:
    """Return the windows of the first and of the second round, none of them solvent only.

    ``wanted`` are those that hold more than solvent, as ``fit_windows`` gives them.

    First those with the largest sum of squares in what they keep: where density is strong the
    resolution is good. Then as many of the denser half's others, evenly spread over the ranks,
    because the densest of all may hold nucleic acid.
    """
    values = density.values_zyx
    plans = [plan_axis(n, settings) for n in values.shape]
    length = settings.n_kept * settings.step
    spans = []
    for plan, n in zip(plans, values.shape, strict=True):
        low = plan.output_0 + plan.first_outputs * settings.step
        first, last = np.clip(low, 0, n - 1), np.clip(low + length, 1, n)
        spans.append([slice(int(a), int(b)) for a, b in zip(first, last, strict=True)])
    power = np.zeros(wanted.shape)
    for index in map(tuple, np.argwhere(wanted)):
        kept = tuple(span[i] for span, i in zip(spans, index, strict=True))
        power[index] = np.square(values[kept], dtype=np.float64).sum()
    n_wanted = int(wanted.sum())
    volume = length**3 * float(np.prod(density.voxel_size, dtype=np.float64))
    least, most = (int(np.ceil(v / volume)) for v in (LEAST_VOLUME, MOST_VOLUME))
    n_first = min(n_wanted, max(least, min(most, round(SHARE / 2 * n_wanted))))
    n_second = min(n_wanted - n_first, n_first)
    end = max(n_first + n_second, -(-n_wanted // 2))
    ranking = np.argsort(-power, axis=None, kind="stable")
    spread = np.linspace(n_first, end - 1, n_second).round().astype(np.int64)
    first, second = np.zeros((2, wanted.size), bool)
    first[ranking[:n_first]] = True
    second[ranking[spread]] = True
    return first.reshape(wanted.shape), second.reshape(wanted.shape)


def count_links_and_turns(calphas: Calphas) -> tuple[int, int, int]:
    """Fitting links, right-handed and left-handed turns; zeros without directions.

    Of the residues near enough to each other a link joins a C and an N that are each other's
    nearest. Four residues in a row whose ends are close make a turn; its hand is that of
    their virtual dihedral angle.
    """
    if calphas.rotation is None or len(calphas) < 2:
        return 0, 0, 0
    n_fitting, successor = _link(BackboneFrames(calphas.rotation, calphas.positions))
    rows = [np.arange(len(calphas))]
    for _ in range(3):
        rows.append(np.where(rows[-1] >= 0, successor[rows[-1]], -1))
    fours = np.stack(rows, axis=-1)
    fours = fours[(fours >= 0).all(-1) & (fours[:, 0] != fours[:, 3])]
    a, b, c, d = calphas.positions[fours].astype(np.float64).transpose(1, 0, 2)
    angle = np.degrees(_dihedral(a, b, c, d))
    is_turn = np.linalg.norm(d - a, axis=-1) <= TURN_LENGTH
    low, high = TURN_ANGLES
    is_turn &= (np.abs(angle) >= low) & (np.abs(angle) <= high)
    return n_fitting, int((is_turn & (angle > 0)).sum()), int((is_turn & (angle < 0)).sum())


def _link(frames: BackboneFrames) -> tuple[int, Int64[np.ndarray, " r"]]:
    """Count fitting links; find the residue that follows each one, or -1."""
    atoms = backbone_atoms(frames).astype(np.float64)
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    low, high = CALPHA_STEP
    pairs = cKDTree(ca).query_pairs(high, output_type="ndarray")
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    bond: np.ndarray = np.linalg.norm(c[first] - n[second], axis=-1)
    step = np.linalg.norm(ca[first] - ca[second], axis=-1)
    is_near = (step >= low) & (bond <= MAX_BOND)
    first, second, bond = first[is_near], second[is_near], bond[is_near]
    shortest_after, shortest_before = np.full((2, len(ca)), np.inf)
    np.minimum.at(shortest_after, first, bond)
    np.minimum.at(shortest_before, second, bond)
    is_link = (bond <= shortest_after[first]) & (bond <= shortest_before[second])
    successor = np.full(len(ca), -1)
    successor[first[is_link]] = second[is_link]
    return int((bond[is_link] <= FITTING_BOND).sum()), successor


def _dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Angle of rotation about b-c from a to d, radians; right-handed is positive."""
    ab, bc, cd = b - a, c - b, d - c
    one, two = np.cross(ab, bc), np.cross(bc, cd)
    sine = (ab * two).sum(-1) * np.linalg.norm(bc, axis=-1)
    angle: np.ndarray = np.arctan2(sine, (one * two).sum(-1))
    return angle


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress within a task of ``total`` steps, ``before`` of which are done."""
    if progress is None:
        return None
    tell: Callable[[int, int], None] = progress
    return lambda done, _: tell(before + done, total)
