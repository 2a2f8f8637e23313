"""How the weights of a small decoder begin and how they are updated."""

import math

import torch
from torch import nn

Optimiser = torch.optim.Optimizer


def initialise(model: nn.Module) -> None:
    """Small embeddings, matrices of about unit gain, and zeros in what writes into the residual stream."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif _is_embedding(name):
            nn.init.normal_(parameter, std=0.02)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.6 / math.sqrt(parameter.shape[1]))


def make_optimisers(model: nn.Module, *, matrix_rate: float, vector_rate: float) -> list[Optimiser]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms.

    Source: Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and not _is_embedding(name)]
    others = [parameter for name, parameter in named if parameter.ndim != 2 or _is_embedding(name)]
    optimisers: list[Optimiser] = [
        torch.optim.Muon(matrices, lr=matrix_rate, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(others, lr=vector_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return optimisers


def scale_rates(optimisers: list[Optimiser], factor: float) -> None:
    """Set every learning rate to `factor` times the one that it began with."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor


def _is_embedding(name: str) -> bool:
    return "embed_tokens" in name
