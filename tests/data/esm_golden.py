"""Make ``esm1b.npz`` and ``esm2.npz``: reduced networks with random weights, run by fair-esm.

Needs fair-esm 2.0.0, which nothing else here needs, so it is not among the test tools:

    python -m venv scratch && scratch/bin/pip install fair-esm==2.0.0 torch numpy
    scratch/bin/python tests/data/esm_golden.py

Each file holds a checkpoint as fair-esm publishes them, so far as its loader shows their
layout: parameters under their published names (``model/...``, exact in half precision) and
settings (JSON). It also holds sequences and what the last layer gives for them
(``representation_0``, ...), begin and end tokens included. fair-esm's own loader reads the
checkpoint here, which shows that the layout is one that it takes.
"""

import json
from argparse import Namespace
from pathlib import Path

import esm
import numpy as np
import torch

LAYERS, WIDTH, HEADS, MAX_POSITIONS = 2, 32, 4, 64
#: All 20 amino acids, the other letters, one residue, the longest for 64 positions.
SEQUENCES = (
    "ACDEFGHIKLMNPQRSTVWY",
    "MXBUZOKLV",
    "G",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPD"[:62],
)
SIZES = {
    "encoder_layers": LAYERS,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": 4 * WIDTH,
    "encoder_attention_heads": HEADS,
    "token_dropout": True,
}


def randomise(network):
    """Give every parameter a value that half precision holds and that matters to the output."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        spread = 0.3 if parameter.ndim == 1 else 1.5 * parameter.shape[-1] ** -0.5
        value = torch.randn(parameter.shape, generator=generator) * spread
        if name.endswith("norm.weight") or "norm_before.weight" in name:
            value += 1
        parameter.data.copy_(value.half().float())


def published(network):
    """Parameters under the names in the files, and those of the contact file apart."""
    model, contacts = {}, {}
    for name, value in network.state_dict().items():
        if name.startswith("contact_head."):
            contacts[name] = value
        else:
            wrapper = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
            model[wrapper + name] = value
    return model, contacts


def record(name, content, contacts):
    """Load a checkpoint as fair-esm does, run it, and write what is needed to repeat that."""
    checkpoint = {**content, "model": dict(content["model"])}
    network, alphabet = esm.pretrained.load_model_and_alphabet_core(
        name, checkpoint, {"model": contacts}
    )
    network.eval()
    encode = alphabet.get_batch_converter()
    settings = content["args"] if "args" in content else content["cfg"]["model"]
    arrays = {
        f"model/{key}": value.numpy() if key.endswith("inv_freq") else value.half().numpy()
        for key, value in content["model"].items()
    }
    for number, sequence in enumerate(SEQUENCES):
        tokens = encode([("", sequence)])[2]
        with torch.no_grad():
            layers = network(tokens, repr_layers=[LAYERS])["representations"]
        arrays[f"tokens_{number}"] = tokens[0].numpy()
        arrays[f"representation_{number}"] = layers[LAYERS][0].numpy()
    path = Path(__file__).with_name(f"{name}.npz")
    np.savez_compressed(
        path, settings=json.dumps(vars(settings)), sequences=np.array(SEQUENCES), **arrays
    )
    print(path, path.stat().st_size, "bytes")


def main():
    alphabet = esm.Alphabet.from_architecture("ESM-1b")
    sizes = {key.removeprefix("encoder_"): value for key, value in SIZES.items()}
    args = Namespace(
        arch="roberta_large", max_positions=MAX_POSITIONS, emb_layer_norm_before=True, **sizes
    )
    network = esm.ProteinBertModel(args, alphabet)
    randomise(network)
    settings = Namespace(arch="roberta_large", max_positions=MAX_POSITIONS, **SIZES)
    model, contacts = published(network)
    record("esm1b", {"args": settings, "model": model}, contacts)

    rotary = esm.ESM2(LAYERS, WIDTH, HEADS, alphabet, token_dropout=True)
    randomise(rotary)
    model, contacts = published(rotary)
    # The loader goes by the name: it starts with esm2 in fair-esm, which reads "cfg" then.
    record("esm2", {"cfg": {"model": Namespace(**SIZES)}, "model": model}, contacts)


if __name__ == "__main__":
    main()
