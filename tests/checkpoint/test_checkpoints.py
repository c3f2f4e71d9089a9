# SPDX-License-Identifier: Apache-2.0
"""What is saved comes back; what cannot be saved is said."""

from __future__ import annotations

import errno
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import helpers
from tests.checkpoint import states
from tgt_jax import checkpoint
from tgt_jax.checkpoint import integrity


class TrainState(NamedTuple):
  step: Any
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any


def _state(scale: float = 1.0) -> TrainState:
  """A state with every kind of leaf and container that training produces."""
  rng = np.random.default_rng(0)
  kernel = jnp.asarray(rng.normal(size=(64, 33)) * scale, jnp.float32)
  params = {
    "student": {"kernel": kernel, "bias": jnp.full(3, scale / 3, jnp.bfloat16)},
    "teacher": {"kernel": kernel.astype(jnp.float16), "nothing": {}},
  }
  tx = optax.partition(
    {
      "learn": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
      "keep": optax.set_to_zero(),
    },
    {"student": "learn", "teacher": "keep"},
  )
  return TrainState(
    step=jnp.int32(7),
    params=params,
    model_state={"mean": jnp.zeros((0, 4)), "empty": {}, "pair": ((), None)},
    opt_state=tx.init(params),
    ema=[
      jnp.int8(-3),
      jnp.array([True, False]),
      np.arange(3, dtype=np.int64) + 2**40,
      np.float64(scale / 7),
      np.uint8(200),
      5,
      0.1,
      jnp.array([jnp.nan, jnp.inf, -0.0]),
    ],
  )


def test_everything_comes_back_bit_for_bit(tmp_path):
  state = _state()
  position = {"next_index": 17, "epochs": [1, 2], "inner": {"done": False}}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore(state) is None
    assert checkpoints.latest_step is None
    checkpoints.save(3, state, iterator_state=position, metrics={"acc": 0.5})
    checkpoints.wait()
    assert checkpoints.latest_step == 3
  with checkpoint.Checkpoints(tmp_path) as checkpoints:  # As a later process.
    step, restored, iterator_state, metrics = checkpoints.restore(_state(2.0))
  assert (step, iterator_state, metrics) == (3, position, {"acc": 0.5})
  states.assert_same_bits(restored, state)
  # Nothing of the target's values is left.
  assert float(_state(2.0).params["student"]["kernel"][0, 0]) != float(
    restored.params["student"]["kernel"][0, 0]
  )


def test_shapes_are_target_enough(tmp_path):
  states.save_steps(tmp_path, [1])
  shapes = jax.eval_shape(lambda: states.small(0))
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    states.assert_same_bits(checkpoints.restore(shapes).state, states.small(1))


def test_the_state_may_be_donated_and_changed_after_save(tmp_path):
  rng = np.random.default_rng(0)
  state = {
    "jax": jnp.asarray(rng.normal(size=(1000, 1000)), jnp.float32),
    "numpy": np.zeros(1_000_000),
  }
  expected = jax.tree.map(lambda a: np.array(a, copy=True), state)
  change = jax.jit(lambda a: a * -3.0, donate_argnums=0)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state, iterator_state={})
    change(change(state["jax"]))
    state["numpy"][:] = 1
    restored = checkpoints.restore(state).state
  jax.tree.map(np.testing.assert_array_equal, restored, expected)


@pytest.mark.parametrize(
  "mode, metrics, kept, best",
  [
    ("max", [0.1, 0.9, 0.3, 0.2, 0.4], [2, 4, 5], 2),
    ("min", [0.1, 0.9, 0.3, 0.2, 0.4], [1, 4, 5], 1),
    ("max", [0.1, 0.9, 0.3, 0.9, 0.2], [4, 5], 4),  # The later of equals.
    ("max", [float("nan"), 0.1, None, 0.0, None], [2, 4, 5], 2),
  ],
)
def test_keeps_the_last_two_and_the_best(tmp_path, mode, metrics, kept, best):
  options = {"best_metric": "acc", "best_mode": mode}
  # Two managers, since a run may be interrupted anywhere.
  for part in (slice(0, 3), slice(3, 5)):
    with checkpoint.Checkpoints(tmp_path, **options) as checkpoints:
      for step, value in list(enumerate(metrics, 1))[part]:
        checkpoints.save(
          step,
          states.small(step),
          iterator_state={},
          metrics=None if value is None else {"acc": value, "loss": 1.0},
        )
  # As a notebook opens a finished run.
  options["read_only"] = True
  with checkpoint.Checkpoints(tmp_path, **options) as checkpoints:
    assert checkpoints.steps == kept
    found = checkpoints.restore_best(states.small(0))
    assert found.step == best
    states.assert_same_bits(found.state, states.small(best))
    assert checkpoints.restore(states.small(0)).step == 5
  assert {p.name for p in tmp_path.iterdir()} == {str(step) for step in kept}


def test_no_metric_no_best(tmp_path):
  states.save_steps(tmp_path, [1])
  with checkpoint.Checkpoints(tmp_path, best_metric="acc") as checkpoints:
    assert checkpoints.restore_best(states.small(0)) is None
  with (
    checkpoint.Checkpoints(tmp_path) as checkpoints,
    pytest.raises(ValueError, match="best_metric"),
  ):
    checkpoints.restore_best(states.small(0))


def test_save_checks_its_arguments(tmp_path):
  with checkpoint.Checkpoints(tmp_path, best_metric="acc") as checkpoints:
    save = checkpoints.save
    with pytest.raises(TypeError, match=r"JSON-able, got .*object"):
      save(1, states.small(1), iterator_state={"it": object()})
    with pytest.raises(ValueError, match=r"'acc' is not among .*: loss"):
      save(1, states.small(1), iterator_state={}, metrics={"loss": 1.0})
    with pytest.raises(TypeError, match="student/key is a PRNG key"):
      save(1, {"student": {"key": jax.random.key(0)}}, iterator_state={})
    with pytest.raises(TypeError, match="name must be an array or a number"):
      save(1, {"name": "resnet"}, iterator_state={})
    with pytest.raises(ValueError, match=r"two leaves .* 'a/b'"):
      save(1, {"a/b": 1, "a": {"b": 2}}, iterator_state={})
    assert checkpoints.steps == []
    assert save(5, states.small(5), iterator_state={})
    assert not save(5, states.small(6), iterator_state={})  # Is there already.
    with pytest.raises(ValueError, match=r"step 4 is below the latest .* 5"):
      save(4, states.small(4), iterator_state={})
    states.assert_same_bits(
      checkpoints.restore(states.small(0)).state, states.small(5)
    )
  with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
    checkpoint.Checkpoints(tmp_path, keep=0)
  with pytest.raises(ValueError, match="'max' or 'min', got 'best'"):
    checkpoint.Checkpoints(tmp_path, best_mode="best")


_OTHER_LAYOUT = """
  import sys
  import jax, numpy as np
  from jax.sharding import PartitionSpec as P
  from tgt_jax import checkpoint, distributed

  whole = {"kernel": np.random.default_rng(0).random((16, 6)).astype(np.float32),
           "bias": np.arange(6, dtype=np.float32)}
  mesh = distributed.make_mesh(fsdp=8)
  split = distributed.state_shardings(whole, mesh, [("kernel", "fsdp")])
  state = distributed.place(whole, split)
  layouts = [
      state,
      distributed.replicate(whole, mesh),
      jax.device_put(whole, jax.devices()[3]),
      jax.eval_shape(lambda: whole),
      jax.tree.map(
          lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
          whole, split),
      whole,
  ]
  with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, state, iterator_state={})
    for target in layouts:
      restored = checkpoints.restore(target).state
      for name, leaf in restored.items():
        assert np.asarray(leaf).tobytes() == whole[name].tobytes()
        if isinstance(target[name], jax.Array):
          assert leaf.sharding == target[name].sharding
"""


def test_restored_to_any_layout(tmp_path):
  helpers.run_with_devices(_OTHER_LAYOUT, 8, tmp_path)


def _no_space(*_):
  raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["wait", "save", "close"])
def test_failure_in_the_background_surfaces(tmp_path, monkeypatch, where):
  message = (
    rf"step 2 in {tmp_path}: the disk is full .*; earlier checkpoints are"
    r" intact \(steps \[1\]\)"
  )
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, states.small(1), iterator_state={})
  checkpoints.wait()
  with monkeypatch.context() as patch:
    patch.setattr(integrity, "seal", _no_space)
    assert checkpoints.save(2, states.small(2), iterator_state={})
    then = {
      "wait": checkpoints.wait,
      "save": lambda: checkpoints.save(3, states.small(3), iterator_state={}),
      "close": checkpoints.close,
    }[where]
    with pytest.raises(checkpoint.CheckpointError, match=message):
      then()
  if where != "close":
    # There is room again: the same run can go on.
    assert checkpoints.steps == [1]
    checkpoints.save(3, states.small(3), iterator_state={})
    assert checkpoints.restore(states.small(0)).step == 3
    checkpoints.close()
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    found = checkpoints.restore(states.small(0))
    assert found.step == (1 if where == "close" else 3)
  assert not list(tmp_path.glob("2*"))


def test_a_failed_save_does_not_hide_the_error_of_the_block(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(integrity, "seal", _no_space)

  def block():
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(1, states.small(1), iterator_state={})
      raise ZeroDivisionError

  with pytest.warns(RuntimeWarning, match="the disk is full"):
    with pytest.raises(ZeroDivisionError):
      block()


_FULL = """
  import logging, resource, sys
  from absl import logging as absl_logging
  filters = absl_logging.get_absl_logger().filters
  before = list(filters), logging.root.level
  import jax.numpy as jnp, numpy as np
  from tgt_jax import checkpoint

  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
  small, large = {"w": jnp.ones(9)}, {
      "w": jnp.asarray(np.random.default_rng(0).random(1_000_000))}
  with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, small, iterator_state={})
    try:
      checkpoints.save(2, large, iterator_state={})
      checkpoints.wait()
    except checkpoint.CheckpointError as error:
      print(error)
    assert checkpoints.restore(small).step == 1
    checkpoints.save(3, small, iterator_state={})
  # Orbax is kept quiet for as long as it works, not by a global setting.
  assert before == (filters, logging.root.level)
"""


def test_files_that_really_do_not_fit(tmp_path):
  process = helpers.start(_FULL, tmp_path)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  assert f"step 2 in {tmp_path}: the disk is full" in out
  assert "earlier checkpoints are intact (steps [1])" in out
  assert err == ""  # Orbax's stack traces are not for users.
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore({"w": jnp.ones(9)}).step == 3


def test_other_log_records_pass(tmp_path, caplog):
  from absl import logging as absl_logging

  with checkpoint.Checkpoints(tmp_path), caplog.at_level(logging.WARNING):
    absl_logging.warning("a word of the loop's own")
  assert "a word of the loop's own" in caplog.text
