"""Models as mmCIF, through gemmi: entities, numbering, confidence, software, citation."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float32

from angelo.residues import NAMES_BY_KIND, UNKNOWN_BY_KIND, residue_table
from angelo.run_folder import write_file
from angelo.types import Model, ModelChain, SequenceRecord

#: The method this program follows (Nature 628, 450, 2024).
METHOD_CITATION = (
    "Automated model building and protein identification in cryo-EM maps",
    "Nature",
    "628",
    "450",
    "457",
    "2024",
    "10.1038/s41586-024-07215-4",
)
METHOD_AUTHORS = (
    "Jamali, K.",
    "Kall, L.",
    "Zhang, R.",
    "Brown, A.",
    "Kimanius, D.",
    "Scheres, S.H.W.",
)
#: What the B-factor column means; also at the top of the file.
CONFIDENCE = "100 * clip((1.2 - predicted backbone error in Angstrom) / 0.7, 0, 1)"
TYPE_PROBABILITY = "probability that the networks give to the residue type written here"
CONFIDENCE_NOTE = (
    "B_iso_or_equiv holds a confidence from 0 to 100; high is good. It is no B-factor: "
    "reset it before refinement."
)
#: What mmCIF calls each kind of polymer.
POLYMER_TYPES = {
    "protein": gemmi.PolymerType.PeptideL,
    "dna": gemmi.PolymerType.Dna,
    "rna": gemmi.PolymerType.Rna,
}
#: Description of the entity of a chain that no sequence is known of.
UNASSIGNED = "unassigned chain"


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a coordinate file says of its making; nothing that changes from run to run."""

    name: str
    """Name of the data block."""
    title: str
    """One line on what this model is."""
    program_version: str
    """Version of angelo."""
    bundle: str
    """Name and version of the networks."""
    bundle_citation: str
    """Citation that the bundle asks for."""
    map_name: str
    """File name of the map."""
    map_sha256: str
    """Checksum of the map file."""
    cell: Float32[np.ndarray, "3"]
    """Edges of the map's box, Å; written as the cell, space group P 1."""


def write_mmcif(
    path: Path, model: Model, records: Sequence[SequenceRecord], metadata: ModelMetadata
) -> None:
    """Write a model; see :func:`mmcif_text`. Raises OutputError and leaves no half file."""
    write_file(path, mmcif_text(model, records, metadata))


def mmcif_text(model: Model, records: Sequence[SequenceRecord], metadata: ModelMetadata) -> str:
    """Format a model as mmCIF: the same model gives the same text.

    Chains on the same sequence share an entity, whose entity_poly_seq is the full sequence;
    label_seq_id and auth_seq_id are the sequence numbers. A chain without a sequence has an
    entity of its own residues; its auth_seq_id is still its own numbering. Confidence is in
    B_iso_or_equiv and, per residue, in ma_qa_metric_local (ModelCIF dictionary).

    Raises
    ------
    ValueError
        If a residue's type or number contradicts its chain's sequence.
    """
    structure = _structure(model, records, metadata)
    groups = gemmi.MmcifOutputGroups(True, auth_all=True, struct_ref=False)
    block = structure.make_mmcif_block(groups)
    _describe(block, model, records, metadata)
    _add_confidence(block, model)
    return _text_of(block)


def describe_chains(text: str, descriptions: Mapping[str, tuple[str, str]]) -> str:
    """Copy of a model in which chains without a sequence are described.

    Parameters
    ----------
    text
        What :func:`mmcif_text` gave.
    descriptions
        Description and details of the entity, for some of the chains. Chains whose sequence is
        known already stay as they are.
    """
    block = gemmi.cif.read_string(text).sole_block()
    of_entity = {
        entity: descriptions[gemmi.cif.as_string(name)]
        for name, entity in block.find("_struct_asym.", ["id", "entity_id"])
        if gemmi.cif.as_string(name) in descriptions
    }
    rows = []
    for number, kind, old in block.find("_entity.", ["id", "type", "pdbx_description"]):
        old, details = gemmi.cif.as_string(old), "?"
        if old == UNASSIGNED:
            old, details = of_entity.get(number, (old, details))
        rows.append([number, kind, old, details])
    _loop(block, "_entity.", ["id", "type", "pdbx_description", "details"], rows)
    return _text_of(block)


def _text_of(block: gemmi.cif.Block) -> str:
    """Format a block; what its B-factors are goes on top."""
    head, body = block.as_string(gemmi.cif.WriteOptions(gemmi.cif.Style.Pdbx)).split("\n", 1)
    return f"{head}\n# {CONFIDENCE_NOTE}\n# Confidence = {CONFIDENCE}\n{body}"


def _structure(
    model: Model, records: Sequence[SequenceRecord], metadata: ModelMetadata
) -> gemmi.Structure:
    structure = gemmi.Structure()
    structure.name = metadata.name
    a, b, c = metadata.cell.tolist()
    structure.cell = gemmi.UnitCell(a, b, c, 90, 90, 90)
    structure.spacegroup_hm = "P 1"
    structure.info["_struct.title"] = metadata.title
    structure.info["_exptl.method"] = "ELECTRON MICROSCOPY"
    entities = _entities(model, records)
    structure.entities = gemmi.EntityList(entities)
    entity_of = {name: entity.name for entity in entities for name in entity.subchains}
    coordinates = gemmi.Model(1)
    for chain in model.chains:
        coordinates.add_chain(_chain(chain, entity_of[chain.name]))
    structure.add_model(coordinates)
    structure.assign_serial_numbers()
    return structure


def _entities(model: Model, records: Sequence[SequenceRecord]) -> list[gemmi.Entity]:
    """One entity a sequence, and one for each chain that has none; in order of appearance."""
    groups: dict[tuple[str, int], list[ModelChain]] = {}
    for number, chain in enumerate(model.chains):
        own = ("chain", number) if chain.sequence < 0 else ("sequence", chain.sequence)
        groups.setdefault(own, []).append(chain)
    entities = []
    for number, ((kind, _), chains) in enumerate(groups.items(), start=1):
        entity = gemmi.Entity(str(number))
        entity.entity_type = gemmi.EntityType.Polymer
        entity.polymer_type = POLYMER_TYPES[chains[0].kind]
        entity.subchains = [chain.name for chain in chains]
        entity.full_sequence = (
            list(chains[0].residue_types)
            if kind == "chain"
            else _full_sequence(chains, records[chains[0].sequence])
        )
        entities.append(entity)
    return entities


def _full_sequence(chains: Sequence[ModelChain], record: SequenceRecord) -> list[str]:
    """Names of a record's residues; where they are unknown, what was built there (or UNK)."""
    _, unknown = UNKNOWN_BY_KIND[record.kind]
    names = NAMES_BY_KIND[record.kind]
    sequence = [names.get(letter, unknown) for letter in record.residues]
    built: dict[int, set[str]] = {}
    for chain in chains:
        for position, kind in zip(chain.sequence_positions, chain.residue_types, strict=True):
            if not 1 <= position <= len(sequence):
                raise ValueError(f"chain {chain.name}: no residue {position} in {record.name}")
            expected = sequence[position - 1]
            if expected == unknown:
                built.setdefault(int(position), set()).add(kind)
            elif expected != kind:
                raise ValueError(
                    f"chain {chain.name}: residue {position} is {kind}, but {expected} in "
                    f"{record.name}"
                )
    for position, kinds in built.items():
        sequence[position - 1] = ",".join(sorted(kinds))
    return sequence


def _chain(chain: ModelChain, entity: str) -> gemmi.Chain:
    built = gemmi.Chain(chain.name)
    for row, kind in enumerate(chain.residue_types):
        residue = gemmi.Residue()
        residue.name = kind
        residue.seqid = gemmi.SeqId(int(chain.sequence_positions[row]), " ")
        residue.label_seq = row + 1 if chain.sequence < 0 else residue.seqid.num
        residue.subchain = chain.name
        residue.entity_id = entity
        residue.entity_type = gemmi.EntityType.Polymer
        residue.het_flag = "A"
        for slot, name in enumerate(residue_table()[kind].atoms):
            if chain.has_atom[row, slot]:
                atom = gemmi.Atom()
                atom.name = name
                atom.element = gemmi.Element(name[0])
                xyz = chain.atom_positions[row, slot].tolist()
                atom.pos = gemmi.Position(*(round(x, 3) for x in xyz))
                atom.b_iso = round(float(chain.confidence[row]), 2)
                atom.occ = 1.0
                residue.add_atom(atom)
        built.add_residue(residue)
    return built


def _describe(
    block: gemmi.cif.Block,
    model: Model,
    records: Sequence[SequenceRecord],
    metadata: ModelMetadata,
) -> None:
    """Add names of entities, software and citations."""
    sequence_of = {chain.name: chain.sequence for chain in model.chains}
    described = {}
    for name, entity in block.find("_struct_asym.", ["id", "entity_id"]):
        sequence = sequence_of[gemmi.cif.as_string(name)]
        described[entity] = records[sequence].name if sequence >= 0 else UNASSIGNED
    _loop(
        block,
        "_entity.",
        ["id", "type", "pdbx_description"],
        [[number, "polymer", described[number]] for number in block.find_values("_entity.id")],
    )
    name, _, version = metadata.bundle.rpartition(" ")
    _loop(
        block,
        "_software.",
        ["pdbx_ordinal", "name", "version", "classification", "description", "citation_id"],
        [
            ["1", "angelo", metadata.program_version, "model building", "program", "primary"],
            ["2", name, version, "model building", "networks", "networks"],
        ],
    )
    _loop(
        block,
        "_citation.",
        [
            *["id", "title", "journal_abbrev", "journal_volume", "page_first", "page_last"],
            *["year", "pdbx_database_id_DOI"],
        ],
        [
            ["primary", *METHOD_CITATION],
            ["networks", metadata.bundle_citation, "?", "?", "?", "?", "?", "?"],
        ],
    )
    _loop(
        block,
        "_citation_author.",
        ["citation_id", "name", "ordinal"],
        [["primary", name, str(n)] for n, name in enumerate(METHOD_AUTHORS, start=1)],
    )
    source = f"Built into {metadata.map_name} (sha256 {metadata.map_sha256})."
    block.set_pair("_struct.pdbx_model_details", _quoted(f"{source} {CONFIDENCE_NOTE}"))
    block.move_item(-1, block.get_index("_struct.title") + 1)
    for row in block.find("_chem_comp.", ["id", "type"]):
        row[1] = _component_type(row[0])


def _component_type(name: str) -> str:
    """Type of a residue in the Chemical Component Dictionary, quoted."""
    if name == "GLY":
        return "'peptide linking'"
    if name in (*NAMES_BY_KIND["dna"].values(), UNKNOWN_BY_KIND["dna"][1]):
        return "'DNA linking'"
    if name in (*NAMES_BY_KIND["rna"].values(), UNKNOWN_BY_KIND["rna"][1]):
        return "'RNA linking'"
    return "'L-peptide linking'"


def _add_confidence(block: gemmi.cif.Block, model: Model) -> None:
    """Add the per-residue categories of ModelCIF: two metrics, one value of each a residue."""
    _loop(
        block,
        "_ma_qa_metric.",
        ["id", "name", "description", "type", "mode", "type_other_details"],
        [
            ["1", "confidence", CONFIDENCE, "other", "local", "0 to 100, high is good"],
            [
                "2",
                "type probability",
                TYPE_PROBABILITY,
                "other",
                "local",
                "0 to 1, high is good",
            ],
        ],
    )
    rows: list[list[str]] = []
    for metric, decimals in (("1", 2), ("2", 3)):
        for chain in model.chains:
            values = chain.confidence if metric == "1" else chain.aa_probability
            for row, (number, kind) in enumerate(
                zip(chain.sequence_positions, chain.residue_types, strict=True)
            ):
                label = row + 1 if chain.sequence < 0 else int(number)
                value = f"{values[row]:.{decimals}f}"
                place = [chain.name, str(label), kind]
                rows.append([str(len(rows) + 1), "1", *place, metric, value])
    _loop(
        block,
        "_ma_qa_metric_local.",
        [
            *["ordinal_id", "model_id", "label_asym_id", "label_seq_id", "label_comp_id"],
            *["metric_id", "metric_value"],
        ],
        rows,
    )


def _loop(
    block: gemmi.cif.Block, category: str, tags: list[str], rows: list[list[str]]
) -> None:
    """Set a category; "?" stays unknown, everything else is quoted where CIF needs it."""
    loop = block.init_mmcif_loop(category, tags)
    for row in rows:
        loop.add_row([value if value == "?" else _quoted(value) for value in row])


def _quoted(text: str) -> str:
    """Quote where CIF needs it; CIF 1.1 is ASCII: accents go, other letters become "?"."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return gemmi.cif.quote("".join(letters).encode("ascii", "replace").decode())
