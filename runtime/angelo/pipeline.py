"""The method on one screen: from a map and sequences to a model in a run folder."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from angelo.align import align_chains
from angelo.assemble import chains_to_model
from angelo.calpha import find_calphas
from angelo.density import prepare_density
from angelo.errors import NothingBuiltError
from angelo.job import BuildJob, Inputs, describe_inputs, read_inputs
from angelo.language import embed_sequences
from angelo.prune import join_fragments, prune_chains, report_assignment
from angelo.refine import refine
from angelo.report.tables import summarise
from angelo.results import BuildResult, Models, read_result, write_results
from angelo.run_folder import RunFolder, key_of
from angelo.run_record import Stages, log_to
from angelo.session import Graph, Networks
from angelo.trace import trace_chains
from angelo.types import Assignment, Calphas, Density, Refinement
from angelo.windows import run_windows

log = logging.getLogger(__name__)

#: What a person can do when nothing was built.
ADVICE = (
    "Likely reasons: the resolution is below about 4 Å, the map has the wrong hand (try its "
    "mirror image), the mask leaves the molecule out, or the map is not a sharpened one"
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
                stages.finish("nothing built")
                raise NothingBuiltError(f"{error}. {ADVICE}") from error
            summary = summarise(models.raw, models.pruned, models.report)
            files = write_results(job, inputs, folder, models, summary)
            stages.finish(files=files, summary=summary, notes=inputs.notes)
        if not job.keep_stages:
            folder.remove_stages()
        return read_result(folder, was_done=False)


def _search(job: BuildJob, inputs: Inputs, density: Density, tell: Tell) -> Calphas:
    """C-alpha candidates of the whole map; several devices share the windows."""
    bundle, network = inputs.bundle, inputs.bundle.c_alpha
    if network.voxel_size != bundle.map.voxel_size:
        wanted = replace(bundle.map, voxel_size=network.voxel_size)
        density = prepare_density(inputs.density, wanted)
    n = len(inputs.devices)
    settings = replace(network.windows, batch=n * network.windows.batch)
    threads = job.threads or None
    with ThreadPoolExecutor(n) as pool:
        path = bundle.folder / network.graph
        graphs = [Graph(path, device, threads) for device in inputs.devices]

        def run(windows: np.ndarray) -> np.ndarray:
            parts = np.array_split(windows, min(n, len(windows)))
            logits = pool.map(lambda graph, part: graph(windows=part)["logits"], graphs, parts)
            return np.concatenate(list(logits))

        voxels = run_windows(density, settings, run, network.points.threshold, tell)
    calphas = find_calphas(voxels, network.points, bundle.residue_types)
    log.info("%d voxels over the threshold, %d C-alphas", len(voxels), len(calphas))
    if not len(calphas):
        raise NothingBuiltError("no C-alpha was found in the map")
    return calphas


def _refine(
    job: BuildJob, inputs: Inputs, density: Density, calphas: Calphas, tell: Tell
) -> Refinement:
    """Residues after all rounds of the graph network, on the first device."""
    bundle, language = inputs.bundle, inputs.bundle.language
    with Networks(bundle.folder, inputs.devices[0], job.threads or None) as networks:
        embedding = None
        if language is not None and inputs.records:
            graph = networks.open(language.graph)
            embedding = embed_sequences(inputs.records, language, graph).values
            networks.close(language.graph)
        rng = np.random.default_rng(job.seed)
        return refine(density, calphas, bundle, networks, embedding, rng, tell)


def _name_chains(refinement: Refinement, inputs: Inputs) -> Models:
    """Trace chains, find them in the sequences, join them, and drop what has no support."""
    types, records = inputs.bundle.residue_types, inputs.records
    chains = trace_chains(refinement, inputs.bundle.chains)
    if not chains:
        raise NothingBuiltError("no residue was found likely enough to be real")
    if not records:
        unplaced = [
            Assignment(chain, -1, np.full(len(chain), -1), score=0.0, e_value=np.inf)
            for chain in chains
        ]
        return Models(chains_to_model(unplaced, refinement, records, types, pruned=False))
    placed = align_chains(chains, refinement, records, types)
    joined = join_fragments(placed, refinement, records)
    kept = prune_chains(joined, refinement)
    return Models(
        chains_to_model(joined, refinement, records, types, pruned=False),
        chains_to_model(kept, refinement, records, types, pruned=True),
        report_assignment(kept, sum(len(chain) for chain in chains), records),
    )
