"""The method on one screen: from a map and sequences to a model in a run folder."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

from angelo.align import place_chains
from angelo.assemble import chains_to_model
from angelo.calpha import find_calphas
from angelo.density import prepare_density
from angelo.errors import NothingBuiltError
from angelo.geometry_models import (
    RegularPositions,
    protein_from_model,
    regularise_models,
    with_positions,
)
from angelo.hand import HandEvidence, describe_hand, judge_hand, mirror
from angelo.job import BuildJob, Inputs, describe_inputs, read_inputs
from angelo.language import embed_sequences
from angelo.manifest import PHOSPHORUS
from angelo.nucleotide_placements import strand_targets_of
from angelo.nucleotide_points import find_phosphorus, with_nucleotides
from angelo.nucleotide_trace import trace_strands
from angelo.place import place_proteins
from angelo.profiles import chain_profiles
from angelo.prune import join_fragments, prune_chains, report_assignment
from angelo.refine import refine
from angelo.register import judge_numbers, leave_out_unsure
from angelo.report.tables import summarise, summarise_geometry
from angelo.report.undecided import undecided_chains
from angelo.results import BuildResult, Models, read_result, write_results
from angelo.run_folder import RunFolder, key_of
from angelo.run_record import Stages, log_to
from angelo.session import Graph, Networks
from angelo.trace import trace_chains
from angelo.types import Assignment, Calphas, Density, Refinement
from angelo.validate import Validation, validate
from angelo.window_plan import WindowSettings, fit_windows
from angelo.windows import Network, predict_points

log = logging.getLogger(__name__)

#: What a person can do when nothing was built.
ADVICE = (
    "Likely reasons: the resolution is below about 4 Å, the map has the wrong hand (try "
    "--hand auto), its voxel size is not right (--voxel-size), the mask leaves the molecule "
    "out, or the map is not a sharpened one"
)
#: Told of finished steps and all steps of the stage at hand.
Tell = Callable[[int, int], None]
#: Told of a stage, its finished steps and all its steps.
Progress = Callable[[str, int, int], None]


def build_model(job: BuildJob, progress: Progress | None = None) -> BuildResult:
    """Build a model and write the run folder.

    A run that was stopped goes on behind its last finished stage; one that is finished is
    left alone (unless ``job.overwrite``).

    Raises
    ------
    UserError
        For bad input, before anything is written; OutputError also later, if the disk is full.
    NothingBuiltError
        If no residue could be built.
    """
    inputs = read_inputs(job)
    with RunFolder.claim(job.out, key_of(inputs.facts), overwrite=job.overwrite) as folder:
        if folder.state == "finished":
            return read_result(folder, was_done=True)
        with log_to(folder):
            for note in inputs.notes:
                log.info("%s", note)
            stages = Stages(folder, describe_inputs(job, inputs), progress)
            density = stages.run(
                "density", lambda _: prepare_density(inputs.density, inputs.bundle.map)
            )
            hand = None
            if job.hand != "keep":
                hand = stages.run_saved(
                    "hand", HandEvidence, lambda tell: _judge_hand(job, inputs, density, tell)
                )
                inputs = _with_hand(job, inputs, hand)
            found = {"hand": "not checked"} if hand is None else hand.summary
            if inputs.is_mirrored:
                density = stages.run(
                    "mirror image", lambda _: prepare_density(inputs.density, inputs.bundle.map)
                )
            try:
                calphas = stages.run_saved(
                    "c-alphas", Calphas, lambda tell: _search(job, inputs, density, tell)
                )
                refinement = stages.run_saved(
                    "refinement",
                    Refinement,
                    lambda tell: _refine(job, inputs, density, calphas, tell),
                )
                models = stages.run("chains", lambda _: _name_chains(refinement, inputs))
            except NothingBuiltError as error:
                stages.finish("nothing built", notes=inputs.notes)
                is_wrong = found["hand"] == "mirrored" and not inputs.is_mirrored
                advice = inputs.notes[-1] if is_wrong else ADVICE
                raise NothingBuiltError(f"{error}. {advice}") from error
            placed = models.by_name
            positions = stages.run_saved(
                "geometry",
                RegularPositions,
                lambda tell: regularise_models(models.raw, models.pruned, tell),
            )
            models = _moved(models, positions)
            checks = stages.run("validation", lambda _: _validate(models))
            summary = summarise(models.raw, models.pruned, models.report) | found
            if models.pruned is not None:
                summary["undecided_chains"] = len(models.undecided)
            summary["geometry"] = summarise_geometry(placed, models.by_name, checks)
            files = write_results(job, inputs, folder, models, checks, summary)
            stages.finish(files=files, summary=summary, notes=inputs.notes)
        if not job.keep_stages:
            folder.remove_stages()
        return read_result(folder, was_done=False)


def _judge_hand(job: BuildJob, inputs: Inputs, density: Density, tell: Tell) -> HandEvidence:
    """Count what speaks for the hand of the map, and for that of its mirror image."""
    with _c_alpha_network(job, inputs) as (windows, run):
        points = inputs.bundle.c_alpha.points
        return judge_hand(_density_to_search(inputs, density), windows, points, run, tell)


def _with_hand(job: BuildJob, inputs: Inputs, evidence: HandEvidence) -> Inputs:
    """Add what a person should know of the hand; flip the map if that is wanted."""
    log.info("%s", evidence)
    is_mirrored = job.hand == "auto" and evidence.verdict == "mirrored"
    note = describe_hand(job.hand, evidence, job.map_path.name)
    notes = inputs.notes
    if note:
        log.warning("%s", note)
        notes = (*notes, note)
    density = mirror(inputs.density) if is_mirrored else inputs.density
    return replace(inputs, density=density, notes=notes, is_mirrored=is_mirrored)


def _search(job: BuildJob, inputs: Inputs, density: Density, tell: Tell) -> Calphas:
    """C-alpha candidates of the whole map."""
    bundle, network = inputs.bundle, inputs.bundle.c_alpha
    density = _density_to_search(inputs, density)
    threshold = network.points.threshold
    targets = ["calpha", *([PHOSPHORUS] if inputs.wants_nucleotides else [])]
    with _c_alpha_network(job, inputs) as (windows, run):
        part, windows, wanted = fit_windows(density, windows)
        voxels, *p_voxels = predict_points(targets, part, windows, run, threshold, tell, wanted)
    calphas = find_calphas(voxels, network.points, bundle.residue_types)
    log.info("%d voxels over the threshold, %d C-alphas", len(voxels), len(calphas))
    for more in p_voxels:
        phosphorus = find_phosphorus(more, threshold)
        log.info("%d voxels over the threshold, %d P", len(more), len(phosphorus))
        calphas = with_nucleotides(calphas, phosphorus)
    if not len(calphas):
        what = "C-alpha or P" if inputs.wants_nucleotides else "C-alpha"
        raise NothingBuiltError(f"no {what} was found in the map")
    return calphas


def _density_to_search(inputs: Inputs, density: Density) -> Density:
    """Return the density on the C-alpha network's grid, which may be one of its own."""
    bundle = inputs.bundle
    if bundle.c_alpha.voxel_size == bundle.map.voxel_size:
        return density
    settings = replace(bundle.map, voxel_size=bundle.c_alpha.voxel_size)
    return prepare_density(inputs.density, settings)


@contextmanager
def _c_alpha_network(job: BuildJob, inputs: Inputs) -> Iterator[tuple[WindowSettings, Network]]:
    """Open the network and say how its windows are cut; several devices share each batch."""
    n, network = len(inputs.devices), inputs.bundle.c_alpha
    path, threads = inputs.bundle.folder / network.graph, job.threads or None
    with ThreadPoolExecutor(n) as pool:
        graphs = [Graph(path, device, threads, keeps_memory=True) for device in inputs.devices]

        def run(windows: np.ndarray) -> np.ndarray:
            parts = np.array_split(windows, min(n, len(windows)))
            logits = pool.map(lambda graph, part: graph(windows=part)["logits"], graphs, parts)
            return np.concatenate(list(logits))

        yield replace(network.windows, batch=n * network.windows.batch), run


def _refine(
    job: BuildJob, inputs: Inputs, density: Density, calphas: Calphas, tell: Tell
) -> Refinement:
    """Residues after all rounds of the graph network; several devices share the crops."""
    bundle, language = inputs.bundle, inputs.bundle.language
    with ExitStack() as held:
        networks, *helpers = (
            held.enter_context(Networks(bundle.folder, device, job.threads or None))
            for device in inputs.devices
        )
        embedding = None
        if language is not None and inputs.proteins:
            graph = networks.open(language.graph)
            embedding = embed_sequences(inputs.proteins, language, graph).values
            networks.close(language.graph)
        rng = np.random.default_rng(job.seed)
        return refine(density, calphas, bundle, networks, embedding, rng, tell, helpers)


def _name_chains(refinement: Refinement, inputs: Inputs) -> Models:
    """Trace chains, find them in the sequences, join them, and drop what has no support."""
    types, records = inputs.bundle.residue_types, inputs.records
    chains = trace_chains(refinement, inputs.bundle.chains)
    strands = trace_strands(refinement, types, inputs.bundle.chains)
    if not chains and not strands:
        raise NothingBuiltError("no residue was found likely enough to be real")
    if not records:
        unplaced = [
            Assignment(chain, -1, np.full(len(chain), -1), score=0.0, e_value=np.inf)
            for chain in (*chains, *strands)
        ]
        built = chains_to_model(unplaced, refinement, records, types, pruned=False)
        return Models(built, chain_profiles(built, unplaced, refinement, records, types))
    placed, refinement = place_proteins(chains, refinement, inputs.proteins, types)
    placed += place_chains(strands, refinement, strand_targets_of(records), types)
    joined = judge_numbers(
        join_fragments(placed, refinement, records), refinement, records, types
    )
    kept = prune_chains(leave_out_unsure(joined), refinement)
    built = chains_to_model(joined, refinement, records, types, pruned=False)
    return Models(
        built,
        chain_profiles(built, joined, refinement, records, types),
        chains_to_model(kept, refinement, records, types, pruned=True),
        report_assignment(kept, sum(map(len, (*chains, *strands))), records),
        undecided_chains(built, joined),
    )


def _moved(models: Models, positions: RegularPositions) -> Models:
    """Give the models the atoms that the geometry step made of theirs."""
    pruned = models.pruned
    if pruned is not None and positions.pruned is not None:
        pruned = with_positions(pruned, positions.pruned)
    return replace(models, raw=with_positions(models.raw, positions.raw), pruned=pruned)


def _validate(models: Models) -> dict[str, Validation]:
    """Stereochemistry of the protein of each model."""
    named = models.by_name
    return {name: validate(protein_from_model(model)) for name, model in named.items()}
