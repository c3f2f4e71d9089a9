# SPDX-License-Identifier: Apache-2.0
"""The generator of a teacher: auto-encoders, trained here or pretrained.

A factory takes plain keyword arguments and returns a `Generator`: pure
functions over `(params, model_state)`, which together are what a teacher
keeps frozen.
"""

from __future__ import annotations

from tgt_jax.generators.autoencoder_kl import autoencoder_kl
from tgt_jax.generators.bart import bart
from tgt_jax.generators.bigbigan import bigbigan
from tgt_jax.generators.corruption import corrupt
from tgt_jax.generators.likelihood import (
  bernoulli_nll,
  gaussian_kl,
  gaussian_nll,
)
from tgt_jax.generators.quantization import (
  Codebook,
  code_counts,
  init_codebook,
  nearest_code,
  perplexity,
  quantize,
  restart_dead_codes,
  update_codebook,
)
from tgt_jax.generators.resampling import resize
from tgt_jax.generators.statistics import LatentStatistics, latent_statistics
from tgt_jax.generators.taesd import taesd
from tgt_jax.generators.vae import conv_vae, vae
from tgt_jax.generators.vq_vae import conv_vq_vae, vq_vae
from tgt_jax.generators.wrappers import (
  chunked,
  from_spec,
  whitened,
  with_statistics,
)

GENERATORS = {
  "vae": vae,
  "conv_vae": conv_vae,
  "vq_vae": vq_vae,
  "conv_vq_vae": conv_vq_vae,
  "autoencoder_kl": autoencoder_kl,
  "taesd": taesd,
  "bigbigan": bigbigan,
  "bart": bart,
}

__all__ = [
  "Codebook",
  "GENERATORS",
  "LatentStatistics",
  "autoencoder_kl",
  "bart",
  "bernoulli_nll",
  "bigbigan",
  "chunked",
  "code_counts",
  "conv_vae",
  "conv_vq_vae",
  "corrupt",
  "from_spec",
  "gaussian_kl",
  "gaussian_nll",
  "init_codebook",
  "latent_statistics",
  "nearest_code",
  "perplexity",
  "quantize",
  "resize",
  "restart_dead_codes",
  "taesd",
  "update_codebook",
  "vae",
  "vq_vae",
  "whitened",
  "with_statistics",
]
