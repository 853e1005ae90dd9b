"""The native model as Fonoteca runs it, built without memory for its weights, to be filled tensor by tensor."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalRotaryEmbedding

from speech.layouts import EMBEDDING, LM_HEAD


def empty_model(config: Phi4MultimodalConfig) -> Phi4MultimodalForCausalLM:
    """The model on the meta device, without its image tower: speech never reaches that."""
    with torch.device("meta"):
        model = Phi4MultimodalForCausalLM(config)
    # the audio encoder's attention takes an additive bias, which flash attention cannot
    model.set_attn_implementation({"": "sdpa", "audio_config": "sdpa"})
    del model.model.embed_tokens_extend.image_embed
    return model


def expected_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> meta tensor of all that a checkpoint must hold. The output layer is the embedding's twin."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != LM_HEAD}


def assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put `tensor` in the place of the parameter or buffer `name`, frozen."""
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    if leaf in module._parameters:  # noqa: SLF001 - torch has no public way to replace a meta parameter
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        setattr(module, leaf, tensor)


def finish(model: Phi4MultimodalForCausalLM, device: torch.device) -> Phi4MultimodalForCausalLM:
    """Add what no checkpoint holds, once every expected tensor is assigned; the model in evaluation mode.

    That is the rotary tables, made from the config, and the output layer, tied to the embedding.
    """
    model.model.rotary_emb = Phi4MultimodalRotaryEmbedding(config=model.config).to(device)
    model.lm_head.weight = model.get_parameter(EMBEDDING)
    model.eval()
    return model
