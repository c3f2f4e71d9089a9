# SPDX-License-Identifier: Apache-2.0
"""The compiled step."""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tgt_jax import methods, training
from tgt_jax.methods.base import Aux, descend
from tgt_jax.metrics import mean


def _method():
  """A line through the origin, with noise on its slope at the start."""

  def loss(params, model_state, frozen, batch, rng, step):
    errors = jnp.square(batch["x"] * params["slope"]["w"] - frozen)
    return jnp.mean(errors), Aux({"loss": mean(errors)}, model_state)

  def init(rng, batch):
    return {"slope": {"w": jax.random.normal(rng)}}, {"slope": {}}

  return methods.from_loss(loss, init, optax.sgd(0.1))


def _train(method, seed):
  roots = training.roots((seed,))
  batch = {"x": jnp.ones((1, 4))}
  frozen = jnp.float32(2.0)
  state = training.jit_once(training.initializer(method))(roots, batch)
  totals = training.empty_totals(method, state, frozen, batch, roots)
  state, totals = training.make_step(method)(
    state, totals, frozen, batch, roots
  )
  return float(state.params["slope"]["w"][0]), totals


def test_seeds_in_turns_share_their_programs(caplog):
  """One compilation of the initialiser and one of the step."""
  method = _method()
  first, _ = _train(method, 0)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    second, _ = _train(method, 1)
  compiled = [r.message for r in caplog.records if "Compiling" in r.message]
  assert not [m for m in compiled if "step" in m or "init" in m], compiled
  assert first != second
  for seed, found in ((0, first), (1, second)):
    start = float(jax.random.normal(training.roots((seed,))[0]))
    np.testing.assert_allclose(found, start - 0.2 * (start - 2.0), rtol=1e-5)


def test_methods_do_not_share_them(caplog):
  _train(_method(), 0)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    _train(_method(), 0)
  compiled = [r.message for r in caplog.records if "Compiling" in r.message]
  assert [m for m in compiled if "step" in m], compiled


def test_compilation_is_timed_once_a_shape():
  before = training.compile_seconds()
  double = jax.jit(lambda x: x * 2)
  double(np.zeros(3))
  first = training.compile_seconds()
  assert first > before
  double(np.ones(3))
  assert training.compile_seconds() == first
  double(np.ones(4))
  assert training.compile_seconds() > first


def test_an_update_under_vmap_takes_what_is_not_batched():
  """Of seeds that share some of its arguments."""
  tx = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2))
  params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
  grads = jax.tree.map(lambda a: jnp.stack([a, -2 * a, a * a]), params)
  state = tx.init(params)
  update = lambda g: descend(tx, g, state, params)
  found = jax.jit(jax.vmap(update))(grads)
  for i in range(3):
    updates, after = tx.update(
      jax.tree.map(lambda a, i=i: a[i], grads), state, params
    )
    expected = optax.apply_updates(params, updates), after
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6),
      found,
      expected,
    )
