# SPDX-License-Identifier: Apache-2.0
"""Mesh, placement, and computation per example without collectives.

What needs more than one device runs in processes of its own, which see CPU
devices that are not there (tests/helpers.py).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests import helpers
from tgt_jax import distributed


def test_make_mesh_takes_all_devices():
  mesh = distributed.make_mesh()
  assert mesh.axis_names == ("data", "fsdp")
  assert mesh.size == jax.device_count()
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"data": 3}, r"data=3 times fsdp=1 does not give the 1 devices"),
    ({"fsdp": 2}, r"fsdp=2 does not give the 1 devices.*fsdp=\[1\]"),
    ({"fsdp": 0}, "need fsdp >= 1"),
    ({"data": 0}, "data >= 1 or -1"),
  ],
)
def test_make_mesh_says_what_does_not_fit(sizes, message):
  with pytest.raises(ValueError, match=message):
    distributed.make_mesh(**sizes, devices=jax.devices()[:1])


def test_batch_sharding_splits_examples_not_seeds():
  mesh = distributed.make_mesh()
  assert distributed.batch_sharding(mesh).spec == P(("data", "fsdp"))
  seeds = distributed.batch_sharding(mesh, leading_seeds=True)
  assert seeds.spec == P(None, ("data", "fsdp"))


@pytest.mark.parametrize("meshed", [True, False])
def test_put_batch_keeps_values_and_types(meshed):
  batch = {
    "input": np.random.default_rng(0).random((4, 3, 3, 1)).astype(np.float32),
    "label": np.arange(4, dtype=np.int32),
    "mask": np.array([True, True, True, False]),
    "nested": (np.arange(4, dtype=np.uint8),),
  }
  mesh = distributed.make_mesh(devices=jax.devices()[:1])
  sharding = distributed.batch_sharding(mesh) if meshed else None
  put = distributed.put_batch(batch, sharding)
  jax.tree.map(np.testing.assert_array_equal, put, batch)
  assert jax.tree.map(lambda a: a.dtype, put) == jax.tree.map(
    lambda a: a.dtype, batch
  )
  for leaf in jax.tree.leaves(put):
    assert isinstance(leaf, jax.Array)
    assert not meshed or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_per_example_without_a_mesh_is_the_function():
  def fn(replicated, split):
    return replicated + split

  assert distributed.per_example(None)(fn) is fn


def test_state_shardings_first_rule_wins():
  mesh = distributed.make_mesh(devices=jax.devices()[:1])
  state = {
    "params": {"head": {"kernel": jnp.ones((4, 2))}, "step": jnp.int32(0)}
  }
  rules = [("head/kernel", P(None, "data")), ("kernel", P("data"))]
  out = distributed.state_shardings(state, mesh, rules)
  assert out["params"]["head"]["kernel"].spec == P(None, "data")
  assert out["params"]["step"].spec == P()


def test_a_spec_may_be_a_tuple_as_configs_have_it():
  mesh = distributed.make_mesh()
  of = lambda spec: (
    distributed.state_shardings({"k": np.zeros((8, 8))}, mesh, [("k", spec)])[
      "k"
    ].spec
  )
  assert of((None, "data")) == of(P(None, "data")) == P(None, "data")
  with pytest.raises(ValueError, match="'k': expected 'fsdp' or a tuple"):
    of("data")


def test_state_shardings_names_the_leaf_that_does_not_fit():
  mesh = distributed.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(ValueError, match=r"head/bias of shape \(4,\).* axis 1"):
    distributed.state_shardings(
      {"head": {"bias": jnp.ones(4)}}, mesh, [("bias", P(None, "data"))]
    )


_HLO = """
  %all-reduce.7 = f32[4]{0} all-reduce(f32[4]{0} %x), channel_id=1, metadata={op_name="jit(f)/all-gather(x)"}
  %ag = (f32[1]{0}, f32[8]{0}) all-gather-start(f32[1]{0} %all-reduce.7)
  %agd = f32[8]{0} all-gather-done((f32[1]{0}, f32[8]{0}) %ag)
  ROOT %psum.5 = f32[6,5]{1,0:T(8,128)} all-reduce(%fusion), channel_id=2
  %p = f32[2] collective-permute(f32[2] %agd), source_target_pairs={{0,1}}
  %fusion.all-to-all = f32[2] fusion(f32[2] %p), calls=%all-to-all.wrapped
"""


def test_collectives_counts_operations_not_names():
  assert distributed.collectives(_HLO) == {
    "all-reduce": 2,
    "all-gather": 1,
    "reduce-scatter": 0,
    "all-to-all": 0,
    "collective-permute": 1,
    "collective-broadcast": 0,
  }


_SETTING = """
  import sys
  import jax, jax.numpy as jnp, numpy as np, optax
  from tgt_jax import distributed

  rng = np.random.default_rng(0)
  w_DxK = rng.normal(size=(6, 5)).astype(np.float32) / 3
  z_BxD = rng.normal(size=(16, 6)).astype(np.float32)
  t_BxK = rng.normal(size=(16, 5)).astype(np.float32)

  def disagreement(w, z, t):
    return 0.5 * jnp.sum((z @ w - t) ** 2, axis=-1)

  def ascend(w, split):
    z, t = split
    def step(_, carry):
      z, path = carry  # path starts as a constant: a plain loop must do.
      g = jax.grad(lambda z: disagreement(w, z, t).sum())(z)
      return z + 0.1 * g, path + jnp.linalg.norm(g, axis=-1)
    z, path = jax.lax.fori_loop(0, 3, step, (z, jnp.zeros(z.shape[:1])))
    return {"z": z, "path": path, "after": disagreement(w, z, t)}

  def setting(mesh):
    sharding = distributed.batch_sharding(mesh)
    split = distributed.put_batch((z_BxD, t_BxK), sharding)
    return distributed.replicate(w_DxK, mesh), split

  def none(compiled):
    return not any(distributed.collectives(compiled.as_text()).values())

  one = distributed.make_mesh(devices=jax.devices()[:1])
  many = distributed.make_mesh(fsdp=int(sys.argv[1]) if sys.argv[1:] else 1)
  assert many.size == 8
"""

_ASCENT = """
  results = {}
  for mesh in (one, many):
    w, split = setting(mesh)
    fn = jax.jit(distributed.per_example(mesh)(ascend))
    results[mesh.size] = jax.device_get(fn(w, split))
    assert none(fn.lower(w, split).compile())
    eager = distributed.per_example(mesh)(ascend)(w, split)
    np.testing.assert_allclose(eager["z"], results[mesh.size]["z"], rtol=1e-6)

  # The closed form, in float64.
  z, w, t = (a.astype(np.float64) for a in (z_BxD, w_DxK, t_BxK))
  for _ in range(3):
    z = z + 0.1 * (z @ w - t) @ w.T
  for result in results.values():
    np.testing.assert_allclose(result["z"], z, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(
        result["after"], 0.5 * ((z @ w - t) ** 2).sum(-1), rtol=1e-5)
  for name in ("z", "path", "after"):
    np.testing.assert_allclose(
        results[8][name], results[1][name], rtol=2e-6, atol=1e-6)
"""

_SEEDS = """
  # Two seeds explore the same batch from their own latents.
  w_SxDxK = np.stack([w_DxK, 2 * w_DxK])
  z_SxBxD = np.stack([z_BxD, -z_BxD])
  fn = jax.vmap(distributed.per_example(many)(ascend), in_axes=(0, (0, None)))
  w = distributed.replicate(w_SxDxK, many)
  z = distributed.put_batch(
      z_SxBxD, distributed.batch_sharding(many, leading_seeds=True))
  t = distributed.put_batch(t_BxK, distributed.batch_sharding(many))
  compiled = jax.jit(fn).lower(w, (z, t)).compile()
  assert none(compiled)
  out = compiled(w, (z, t))
  for seed in range(2):
    alone = ascend(jnp.asarray(w_SxDxK[seed]),
                   (jnp.asarray(z_SxBxD[seed]), jnp.asarray(t_BxK)))
    np.testing.assert_allclose(out["z"][seed], alone["z"], rtol=2e-6, atol=1e-6)
  # Each device holds two examples of both seeds.
  assert out["z"].addressable_shards[0].data.shape == (2, 2, 6)
"""

_GRADIENT = """
  # A gradient taken inside shard_map and averaged by hand is 8 times too
  # large; the ways open to callers of this package must not be.
  def mean_loss(w, split):
    return disagreement(w, *split).mean()

  def through_per_example(mesh):
    def loss(w, split):
      values = distributed.per_example(mesh)(lambda w, s: disagreement(w, *s))
      return values(w, split).mean()
    return loss

  exact = z_BxD.astype(np.float64).T @ (
      z_BxD.astype(np.float64) @ w_DxK - t_BxK) / 16
  for mesh in (one, many):
    w, split = setting(mesh)
    for loss in (mean_loss, through_per_example(mesh)):
      grad = jax.jit(jax.grad(loss))
      np.testing.assert_allclose(grad(w, split), exact, rtol=2e-5, atol=1e-6)
  # The student's gradient is the one thing that is communicated.
  counts = distributed.collectives(
      jax.jit(jax.grad(mean_loss)).lower(w, split).compile().as_text())
  assert counts["all-reduce"] >= 1 and sum(counts.values()) < 4, counts
"""

_FSDP = """
  tx = optax.adam(1e-2)
  params = {"dense": {"kernel": w_DxK.repeat(4, 0), "bias": np.zeros(5, np.float32)}}
  rules = [("kernel", "fsdp"), ("bias", "fsdp")]

  def loss(params, split):
    z, t = split
    out = jnp.tile(z, (1, 4)) @ params["dense"]["kernel"]
    return jnp.mean((out + params["dense"]["bias"][None] - t) ** 2)

  @jax.jit
  def step(state, split):
    grads = jax.grad(loss)(state["params"], split)
    updates, opt = tx.update(grads, state["opt"])
    return {"params": optax.apply_updates(state["params"], updates), "opt": opt}

  results = []
  for mesh, rules in ((one, ()), (many, rules)):
    state = {"params": params, "opt": tx.init(params)}
    shardings = distributed.state_shardings(state, mesh, rules)
    state = distributed.place(state, shardings)
    split = distributed.put_batch(
        (z_BxD, t_BxK), distributed.batch_sharding(mesh))
    for _ in range(3):
      state = step(state, split)
    results.append(state)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      *jax.device_get(results))

  def local(leaf):
    return leaf.addressable_shards[0].data.shape

  for tree in (state["params"], state["opt"][0].mu, state["opt"][0].nu):
    assert local(tree["dense"]["kernel"]) == (6, 5)  # 24 rows over 4 devices
    assert local(tree["dense"]["bias"]) == (5,)  # 5 does not split over 4
  counts = distributed.collectives(step.lower(state, split).compile().as_text())
  assert counts["all-gather"] >= 1, counts  # The counter does see things.

  try:
    distributed.process_batch_size(20, many)
  except ValueError as error:
    assert "20 is not divisible by the 8 devices" in str(error), error
    assert "use 16 or 24" in str(error), error
  else:
    raise AssertionError("20 examples went to 8 devices")
  assert distributed.process_batch_size(24, many) == 24
  assert distributed.process_batch_size(20, None) == 20
"""


@pytest.mark.parametrize(
  "program, fsdp",
  [(_ASCENT + _SEEDS, 1), (_GRADIENT, 1), (_GRADIENT, 2), (_FSDP, 4)],
  ids=["ascent", "gradient", "gradient-2x", "fsdp"],
)
def test_eight_devices_equal_one(program, fsdp):
  helpers.run_with_devices(_SETTING + program, 8, fsdp)
