# SPDX-License-Identifier: Apache-2.0
"""Public weights of generators, by name."""

from __future__ import annotations

from collections.abc import Sequence

from tgt_jax.weights.cards import Preprocessing
from tgt_jax.weights.converter import Converter, Prepare
from tgt_jax.weights.rules import Rule
from tgt_jax.weights.tables import autoencoder_kl, bigbigan, taesd

# Generators take images in [0, 1] as they are.
_PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=256)
_GENERATOR_ONLY = (
  "Without an encoder: the names of its variables are not public. It decodes,"
  " and explores from latents that are at hand."
)


def _bigbigan(
  rules: Sequence[Rule], prepare: Prepare, output_bn_eps: float
) -> Converter:
  return Converter(
    family="generators",
    model={
      "name": "bigbigan",
      "input_shape": (128, 128, 3),
      "with_encoder": False,
      "output_bn_eps": output_bn_eps,
    },
    input_shape=(128, 128, 3),
    rules=rules,
    licence="not stated with the weights",
    preprocessing=_PLAIN,
    prepare=prepare,
    notes=_GENERATOR_ONLY,
  )


CONVERTERS = {
  "sd_vae": Converter(
    family="generators",
    model={"name": "autoencoder_kl", "input_shape": (256, 256, 3)},
    input_shape=(256, 256, 3),
    rules=autoencoder_kl.autoencoder_kl(),
    licence="MIT",
    preprocessing=_PLAIN,
    notes="stabilityai/sd-vae-ft-mse; today's, 2022's and CompVis' names.",
  ),
  "taesd": Converter(
    family="generators",
    model={"name": "taesd", "input_shape": (256, 256, 3)},
    input_shape=(256, 256, 3),
    rules=taesd.taesd(),
    licence="MIT",
    preprocessing=_PLAIN,
    notes="madebyollin/taesd as diffusers stores it, in one file.",
  ),
  # The public port's last normalisation has PyTorch's epsilon.
  "bigbigan_torch": _bigbigan(
    bigbigan.torch_generator(), bigbigan.prepare_torch, 1e-5
  ),
  "bigbigan_hub": _bigbigan(
    bigbigan.tensorflow_generator(), bigbigan.prepare_tensorflow, 1e-4
  ),
}
