"""The reference's networks, from a checkout of it, and what each of their layers does."""

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import typer

from angelo_export.networks.c_alpha import CalphaConfig
from angelo_export.networks.gnn import GraphConfig
from angelo_export.networks.language import LanguageConfig


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of the reference: what it started from, and what came out."""

    features: torch.Tensor
    affines: torch.Tensor
    features_out: torch.Tensor
    affines_out: torch.Tensor
    places_out: torch.Tensor


def reference_modules(checkout: Path) -> tuple[ModuleType, type]:
    """Definition of the C-alpha network, and class of the graph network."""
    sys.path.insert(0, str(checkout))
    path = checkout / "model_angelo/model_definitions/nucleotides/c_alpha/model.py"
    try:
        spec = importlib.util.spec_from_file_location("reference_c_alpha", path)
        assert spec is not None and spec.loader is not None
        definition = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(definition)
        from model_angelo.gnn.multi_layer_ipa import MultiLayerSeparableIPA
    except (ImportError, OSError) as error:
        typer.secho(
            f"error: {checkout}: not an importable checkout of model-angelo ({error}); install "
            "what it needs into this environment",
            err=True,
        )
        raise typer.Exit(2) from None
    return definition, MultiLayerSeparableIPA


def reference_calpha(definition: ModuleType, config: CalphaConfig) -> torch.nn.Module:
    """Their C-alpha network in our sizes."""
    return definition.InvertedRetinaFPN(
        definition.Bottleneck,
        list(config.blocks),
        in_channels=config.n_in,
        out_channels=config.n_out,
        features=config.features,
        usual_conv_settings={"kernel_size": 3, "stride": 1, "padding": 1, "groups": 1},
        activation_class=torch.nn.ReLU,
        affine=True,
    )


def reference_graph(graph_class: type, config: GraphConfig) -> torch.nn.Module:
    """Their graph network in our sizes."""
    return graph_class(
        config.sequence,
        config.hidden,
        attention_heads=config.heads,
        query_points=config.points,
        num_neighbours=config.neighbours,
        num_layers=config.layers,
        q_length=config.rectangle_length,
        p_context=config.cube_side,
        cryo_emb_dim=config.density,
    )


def reference_language(config: LanguageConfig) -> torch.nn.Module:
    """ESM-1b as fair-esm, which the reference calls, defines it, in our sizes."""
    try:
        from esm.data import Alphabet
        from esm.model.esm1 import ProteinBertModel
    except ImportError as error:
        typer.secho(f"error: {error}; install fair-esm into this environment", err=True)
        raise typer.Exit(2) from None
    settings = argparse.Namespace(
        arch="roberta_large",
        layers=config.layers,
        embed_dim=config.width,
        ffn_embed_dim=4 * config.width,
        attention_heads=config.heads,
        max_positions=config.max_positions,
        emb_layer_norm_before=True,
        token_dropout=True,
        logit_bias=True,
        final_bias=True,
    )
    model: torch.nn.Module = ProteinBertModel(settings, Alphabet.from_architecture("ESM-1b"))
    return model


def take_language_weights(theirs: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give fair-esm's network weights of ours, which hold no heads.

    Raises
    ------
    ValueError
        If anything else is left over.
    """
    result = theirs.load_state_dict(weights, strict=False)
    heads = ("lm_head.", "contact_head.")
    odd = [
        *result.unexpected_keys,
        *(n for n in result.missing_keys if not n.startswith(heads)),
    ]
    if odd:
        raise ValueError(f"fair-esm's names differ: {', '.join(odd)}")
    theirs.eval()


def take_weights(theirs: torch.nn.Module, ours: torch.nn.Module, prefix: str) -> None:
    """Give the reference's network our weights, strictly."""
    state = {name.removeprefix(prefix): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    theirs.eval()


class Recorder:
    """Hooks that keep what each layer of the reference started from and gave."""

    def __init__(
        self, network: torch.nn.Module, config: GraphConfig, start: torch.Tensor
    ) -> None:
        self.steps: list[Step] = []
        self._config, self._affines, self._features = config, start.cpu(), None
        self._handles = [
            network.transition_layer.register_forward_hook(self._features_came),
            network.backbone_update_fc.register_forward_hook(self._frames_came),
        ]

    def _features_came(self, module: Any, arguments: Any, output: torch.Tensor) -> None:
        self._features = output.cpu()

    def _frames_came(self, module: Any, arguments: Any, output: Any) -> None:
        places, affines = (part.cpu() for part in output)
        if len(self.steps) % self._config.layers == 0:
            before = torch.zeros_like(self._features)
            before[:, -1] = 1  # proteins
        else:
            before = self.steps[-1].features_out
        self.steps.append(Step(before, self._affines, self._features, affines, places))
        self._affines = affines

    def finish(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
