"""A complete bundle in milliseconds: small ONNX graphs with readable behaviour.

- c_alpha: the logit is ``4 * (density - 1)``, so every blob of a standardised map is a C-alpha;
  no offsets, every residue has the identity as its frame (C along +x), amino-acid logits are
  random weights times density. A blob of negative density is a phosphorus, if there is such a
  channel.
- embedder: a table look-up. seq_kv: two projections for each layer.
- layers: features pass through, nothing moves; the amino-acid logits of the C-alpha network
  come out again (plus a little sequence attention); existence follows the density at the
  C-alpha; the neighbour 3.8 A away along the residue's CA->C direction is the next one.
- heads: random torsions.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Three-letter codes, alphabetical.
RESIDUE_TYPES = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()
)
#: One-letter codes in the same order; their tokens are 4, 5, ...
ONE_LETTER = "ARNDCQEGHILKMFPSTWYV"
#: Torsions of the heads graph: 3 of the backbone, 5 for each residue type.
N_TORSIONS = 3 + 5 * len(RESIDUE_TYPES)
HIDDEN, WIDTH, HEADS, HEAD_WIDTH = 24, 6, 2, 4
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def write_tiny_bundle(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write a bundle into ``folder`` (made if need be) and return the folder.

    ``overrides`` are merged into the manifest before the graphs are made from it, section by
    section: ``write_tiny_bundle(p, gnn={"rounds": 3})``. ``language=None`` leaves out the
    sequence side (embedder and seq_kv) of the bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = _merged(_default_manifest(), overrides)
    if manifest["language"] is None:
        manifest["gnn"]["sequence"] = None
    rng = np.random.default_rng(seed)
    for name, model in _graphs(manifest, rng).items():
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "README.md").write_text("# tiny\n\nRandom weights, for tests.\n")
    if "files" not in overrides:
        manifest["files"] = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in sorted(folder.glob("*.onnx"))
        }
    write_manifest(folder, manifest)
    return folder


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``bundle.json`` as it is, right or wrong."""
    (folder / "bundle.json").write_text(json.dumps(manifest, indent=2))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return ``bundle.json`` as plain data, to be spoilt by tests."""
    return json.loads((folder / "bundle.json").read_text())


def _default_manifest() -> dict[str, Any]:
    directions = [f"{atom}_{axis}" for atom in ("offset", "n", "c") for axis in "xyz"]
    return {
        "format": "angelo-bundle",
        "format_version": 1,
        "name": "tiny",
        "version": "0.0.1",
        "licence": "MIT",
        "citation": "None: random weights.",
        "made_by": {"tool": "tests/tiny_bundle.py"},
        "accuracy": {},
        "parity": {},
        "files": {},
        "residue_types": RESIDUE_TYPES,
        "map": {"voxel_size": 1.0, "spectrum": None, "scale": "contrast"},
        "c_alpha": {
            "graph": "c_alpha.onnx",
            "voxel_size": 1.0,
            "inputs": ["density"],
            "channels": ["calpha", *directions, *(f"aa_{name}" for name in RESIDUE_TYPES)],
            "window": 16,
            "step": 1,
            "start": 0.0,
            "margin": 2,
            "stride": 12,
            "batch": 2,
            "points": {
                "method": "votes",
                "threshold": 0.3,
                "radius": 1.5,
                "min_separation": 2.6,
                "min_support": 0.5,
            },
        },
        "language": {
            "graph": "embedder.onnx",
            "tokens": {letter: 4 + i for i, letter in enumerate(ONE_LETTER)},
            "begin": 0,
            "end": 2,
            "unknown": 3,
            "max_length": 40,
            "overlap": 10,
        },
        "gnn": {
            "start": "start.onnx",
            "start_features": ["aa_logits", "probability"],
            "sequence": "seq_kv.onnx",
            "layers": ["layer_00.onnx", "layer_01.onnx"],
            "heads": "heads.onnx",
            "hidden": HIDDEN,
            "neighbours": 6,
            "cube": {"side": 3, "spacing": 1.0},
            "rectangle": {"length": 5, "side": 3, "spacing": 1.0, "method": "axis"},
            "frames": "alphafold",
            "start_frames": "predicted",
            "iterations": 1,
            "rounds": 1,
            "crop": None,
            "min_existence": 0.5,
        },
        "chains": {"min_next_probability": 0.2, "max_bond": 2.6},
    }


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = (
            _merged(old, value)
            if isinstance(old, dict) and isinstance(value, Mapping)
            else value
        )
    return merged


def _graphs(
    manifest: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, onnx.ModelProto]:
    gnn, language = manifest["gnn"], manifest["language"]
    graphs = {
        manifest["c_alpha"]["graph"]: _c_alpha(manifest["c_alpha"], rng),
        gnn["heads"]: _heads(gnn, rng),
    }
    if gnn["start"] is not None:
        graphs[gnn["start"]] = _start(manifest)
    for name in gnn["layers"]:
        graphs[name] = _layer(manifest, rng)
    if language is not None:
        graphs[language["graph"]] = _embedder(language, rng)
        graphs[gnn["sequence"]] = _seq_kv(len(gnn["layers"]), rng)
    return graphs


def _c_alpha(settings: Mapping[str, Any], rng: np.random.Generator) -> onnx.ModelProto:
    """A 1 x 1 x 1 convolution (strided when ``step`` is not 1) over the first input channel."""
    fixed = {"calpha": -4.0, "phosphorus": -4.0, "n_x": -0.523, "n_y": 1.362, "c_x": 1.525}
    channels, edge, step = settings["channels"], settings["window"], settings["step"]
    weight = np.zeros((len(channels), len(settings["inputs"]), 1, 1, 1), np.float32)
    for row, name in enumerate(channels):
        if name.startswith("aa_"):
            weight[row, 0] = rng.normal()
        elif name == "calpha":
            weight[row, 0] = 4.0
        elif name == "phosphorus":
            weight[row, 0] = -4.0
    bias = np.array([fixed.get(name, 0.0) for name in channels], np.float32)
    out = -(-edge // step)
    return _model(
        "c_alpha",
        [helper.make_node("Conv", ["windows", "w", "b"], ["logits"], strides=[step] * 3)],
        [("windows", FLOAT, ["b", len(settings["inputs"]), edge, edge, edge])],
        [("logits", FLOAT, ["b", len(channels), out, out, out])],
        {"w": weight, "b": bias},
    )


def _embedder(language: Mapping[str, Any], rng: np.random.Generator) -> onnx.ModelProto:
    ids = [
        *language["tokens"].values(),
        language["unknown"],
        language["begin"],
        language["end"],
    ]
    size = 1 + max(i for i in ids if i is not None)
    return _model(
        "embedder",
        [helper.make_node("Gather", ["table", "tokens"], ["embedding"])],
        [("tokens", INT64, [1, "l"])],
        [("embedding", FLOAT, [1, "l", WIDTH])],
        {"table": rng.normal(size=(size, WIDTH)).astype(np.float32)},
    )


def _seq_kv(n_layers: int, rng: np.random.Generator) -> onnx.ModelProto:
    nodes, constants = [], {"shape": np.array([n_layers, -1, HEADS, HEAD_WIDTH])}
    for name in ("keys", "values"):
        constants[f"w_{name}"] = rng.normal(
            scale=0.5, size=(n_layers, WIDTH, HEADS * HEAD_WIDTH)
        ).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", ["embedding", f"w_{name}"], [f"flat_{name}"]),
            helper.make_node("Reshape", [f"flat_{name}", "shape"], [name]),
        ]
    kv_shape = [n_layers, "l", HEADS, HEAD_WIDTH]
    return _model(
        "seq_kv",
        nodes,
        [("embedding", FLOAT, ["l", WIDTH])],
        [("keys", FLOAT, kv_shape), ("values", FLOAT, kv_shape)],
        constants,
    )


def _start(manifest: Mapping[str, Any]) -> onnx.ModelProto:
    """Copy the start features into the first columns of the features."""
    width = {"aa_logits": len(manifest["residue_types"]), "probability": 1, "is_protein": 1}
    n = sum(width[name] for name in manifest["gnn"]["start_features"])
    hidden = manifest["gnn"]["hidden"]
    return _model(
        "start",
        [helper.make_node("MatMul", ["start_features", "w"], ["features"])],
        [("start_features", FLOAT, ["r", n])],
        [("features", FLOAT, ["r", hidden])],
        {"w": np.eye(n, hidden, dtype=np.float32)},
    )


def _heads(gnn: Mapping[str, Any], rng: np.random.Generator) -> onnx.ModelProto:
    weight = rng.normal(size=(gnn["hidden"], 2 * N_TORSIONS)).astype(np.float32)
    bias = rng.normal(size=2 * N_TORSIONS).astype(np.float32)
    return _model(
        "heads",
        [
            helper.make_node("Gemm", ["features", "w", "b"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["torsions"]),
        ],
        [("features", FLOAT, ["r", gnn["hidden"]])],
        [("torsions", FLOAT, ["r", N_TORSIONS, 2])],
        {"w": weight, "b": bias, "shape": np.array([-1, N_TORSIONS, 2])},
    )


def _layer(manifest: Mapping[str, Any], rng: np.random.Generator) -> onnx.ModelProto:
    gnn, n_types = manifest["gnn"], len(manifest["residue_types"])
    hidden, k, side = gnn["hidden"], gnn["neighbours"], gnn["cube"]["side"]
    n_rect = gnn["rectangle"]["length"] * gnn["rectangle"]["side"] ** 2
    with_sequence = gnn["sequence"] is not None
    constants = {
        "w_query": rng.normal(size=(HEADS, hidden, HEAD_WIDTH)).astype(np.float32) * 0.1,
        "w_seq": rng.normal(size=(HEADS * HEAD_WIDTH, n_types)).astype(np.float32) * 0.1,
        "w_aa": np.eye(hidden, n_types, dtype=np.float32),
        "w_error": rng.normal(size=(hidden, 1)).astype(np.float32) * 0.1,
        "flat_heads": np.array([-1, HEADS * HEAD_WIDTH]),
        "zero": np.float32(0),
        "last": np.array([-1]),
        "first_column": np.int64(0),
        "middle": np.int64(side**3 // 2),
        "four": np.float32(4),
        "two": np.float32(2),
        "six": np.float32(6),
        "eight": np.float32(8),
        "tiny": np.float32(1e-6),
        "bond": np.float32(3.8),
        "middle_row": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Identity", ["features"], ["features_out"]),
        node("Mul", ["rotations", "zero"], ["shifts"]),
        node("MatMul", ["features", "w_aa"], ["aa_own"]),
        node("MatMul", ["features", "w_error"], ["error_column"]),
        node("Sigmoid", ["error_column"], ["error_positive"]),
        node("Squeeze", ["error_positive", "last"], ["predicted_error"]),
        # existence = 4 * density at the C-alpha - 2
        node("Gather", ["cubes", "middle"], ["density_at_ca"], axis=1),
        node("Mul", ["density_at_ca", "four"], ["density_4"]),
        node("Sub", ["density_4", "two"], ["existence"]),
        # next = 6 cos(edge, e1) - 8 |distance - 3.8| + tanh(mean density on the way)
        node("Gather", ["positions", "neighbours"], ["other"]),
        node("Unsqueeze", ["positions", "middle_row"], ["own"]),
        node("Sub", ["other", "own"], ["edge"]),
        node("ReduceL2", ["edge"], ["distance"], axes=[2], keepdims=0),
        node("Gather", ["rotations", "first_column"], ["e1"], axis=2),
        node("Unsqueeze", ["e1", "last"], ["e1_column"]),
        node("MatMul", ["edge", "e1_column"], ["along_column"]),
        node("Squeeze", ["along_column", "last"], ["along"]),
        node("Add", ["distance", "tiny"], ["distance_safe"]),
        node("Div", ["along", "distance_safe"], ["cosine"]),
        node("Mul", ["cosine", "six"], ["cosine_6"]),
        node("Sub", ["distance", "bond"], ["stretch"]),
        node("Abs", ["stretch"], ["stretch_abs"]),
        node("Mul", ["stretch_abs", "eight"], ["stretch_8"]),
        node("Sub", ["cosine_6", "stretch_8"], ["geometry"]),
        node("ReduceMean", ["rectangles"], ["on_the_way"], axes=[2], keepdims=0),
        node("Tanh", ["on_the_way"], ["on_the_way_1"]),
        node("Add", ["geometry", "on_the_way_1"], ["next_logits"]),
    ]
    inputs = [
        ("features", FLOAT, ["r", hidden]),
        ("rotations", FLOAT, ["r", 3, 3]),
        ("positions", FLOAT, ["r", 3]),
        ("neighbours", INT64, ["r", k]),
        ("cubes", FLOAT, ["r", side**3]),
        ("rectangles", FLOAT, ["r", k, n_rect]),
    ]
    if with_sequence:
        inputs += [
            (name, FLOAT, ["l", HEADS, HEAD_WIDTH])
            for name in ("sequence_keys", "sequence_values")
        ]
        nodes += [
            node("MatMul", ["features", "w_query"], ["query"]),  # (heads, r, c)
            node("Transpose", ["sequence_keys"], ["keys_t"], perm=[1, 2, 0]),
            node("MatMul", ["query", "keys_t"], ["score"]),  # (heads, r, l)
            node("Softmax", ["score"], ["attention"], axis=-1),
            node("Transpose", ["sequence_values"], ["values_t"], perm=[1, 0, 2]),
            node("MatMul", ["attention", "values_t"], ["read"]),  # (heads, r, c)
            node("Transpose", ["read"], ["read_t"], perm=[1, 0, 2]),
            node("Reshape", ["read_t", "flat_heads"], ["read_flat"]),
            node("MatMul", ["read_flat", "w_seq"], ["aa_seq"]),
            node("Add", ["aa_own", "aa_seq"], ["aa_logits"]),
        ]
    else:
        nodes.append(node("Identity", ["aa_own"], ["aa_logits"]))
    used = {name for made in nodes for name in made.input}
    # The names of inputs and outputs may not meet in one graph: features come out renamed.
    return _model(
        "layer",
        nodes,
        inputs,
        [
            ("features_out", FLOAT, ["r", hidden]),
            ("shifts", FLOAT, ["r", 3, 3]),
            ("aa_logits", FLOAT, ["r", n_types]),
            ("predicted_error", FLOAT, ["r"]),
            ("existence", FLOAT, ["r"]),
            ("next_logits", FLOAT, ["r", k]),
        ],
        {name: value for name, value in constants.items() if name in used},
    )


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
    constants: Mapping[str, Any],
) -> onnx.ModelProto:
    def ports(rows: list[tuple[str, int, list[int | str]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(*row) for row in rows]

    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, name, ports(inputs), ports(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
