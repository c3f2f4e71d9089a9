# SPDX-License-Identifier: Apache-2.0
"""Damaged files are noticed and passed over, whichever they are."""

from __future__ import annotations

import shutil
import time

import jax.numpy as jnp
import pytest

from tests import helpers
from tests.checkpoint import states
from tgt_jax import checkpoint


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp("two")
  states.save_steps(directory, [1, 2])
  return directory


def _half(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  "harm",
  [_half, _flip, lambda path: path.unlink()],
  ids=["half", "bit", "gone"],
)
def test_each_file_damaged_in_turn(two_saved, tmp_path, harm):
  files = [p for p in (two_saved / "2").rglob("*") if p.is_file()]
  assert len(files) > 8
  fell_back = []
  for number, file in enumerate(sorted(files)):
    copy = tmp_path / str(number)
    shutil.copytree(two_saved, copy)
    name = file.relative_to(two_saved)
    harm(copy / name)
    with checkpoint.Checkpoints(copy) as checkpoints:
      if name.name.startswith("_CHECK") or str(name) == "2/commit_success.txt":
        # Orbax's marks of completion, which hold nothing that is restored.
        assert checkpoints.restore(states.small(0)).step == 2
        continue
      with pytest.warns(RuntimeWarning, match=rf"step 2 in .*{number}.*\("):
        restored = checkpoints.restore(states.small(0))
      assert restored.step == 1, name
      states.assert_same_bits(restored.state, states.small(1))
      assert restored.iterator_state == {"at": 1}
      fell_back.append(name)
  assert len(fell_back) >= len(files) - 2


def test_training_goes_on_over_a_damaged_step(two_saved, tmp_path):
  directory = tmp_path / "run"
  shutil.copytree(two_saved, directory)
  _half(directory / "2" / "manifest.json")
  with checkpoint.Checkpoints(directory) as checkpoints:
    with pytest.warns(RuntimeWarning, match=r"manifest.json is damaged"):
      assert checkpoints.restore(states.small(0)).step == 1
    assert checkpoints.save(2, states.small(22), iterator_state={})
    states.assert_same_bits(
      checkpoints.restore(states.small(0)).state, states.small(22)
    )
  assert (directory / "2.unreadable" / "manifest.json").exists()


def test_none_readable_is_an_error_each_time(two_saved, tmp_path):
  directory = tmp_path / "run"
  shutil.copytree(two_saved, directory)
  for step in ("1", "2"):
    (directory / step / "host.json").unlink()
  for _ in range(2):  # A second start must not begin anew in silence.
    with (
      checkpoint.Checkpoints(directory) as checkpoints,
      pytest.warns(RuntimeWarning),
      pytest.raises(
        checkpoint.CheckpointError,
        match=r"no readable checkpoint in .*step 2: host.json is missing;"
        r" step 1: host.json is missing\. Restore",
      ),
    ):
      checkpoints.restore(states.small(0))


def test_read_only_changes_nothing(two_saved, tmp_path):
  directory = tmp_path / "run"
  shutil.copytree(two_saved, directory)
  _half(directory / "2" / "manifest.json")
  before = sorted(directory.rglob("*"))
  with checkpoint.Checkpoints(directory, read_only=True) as checkpoints:
    with pytest.warns(RuntimeWarning, match="step 2"):
      assert checkpoints.restore(states.small(0)).step == 1
    with pytest.raises(ValueError, match="read_only"):
      checkpoints.save(3, states.small(3), iterator_state={})
  assert sorted(directory.rglob("*")) == before
  with pytest.raises(FileNotFoundError, match="nowhere"):
    checkpoint.Checkpoints(tmp_path / "nowhere", read_only=True)


@pytest.mark.parametrize(
  "target, message",
  [
    ({"w": jnp.ones((40, 5))}, "n is only in the checkpoint"),
    ({**states.small(0), "b": jnp.ones(2)}, "b is not in the checkpoint"),
    (
      {"w": jnp.ones((5, 40)), "n": jnp.int32(0)},
      r"w is float32\[40, 5\] in the checkpoint, float32\[5, 40\] here",
    ),
    (
      {"w": jnp.ones((40, 5), jnp.bfloat16), "n": jnp.int32(0)},
      r"w is float32\[40, 5\] in the checkpoint, bfloat16\[40, 5\] here",
    ),
  ],
)
def test_another_structure_is_an_error_not_a_fallback(
  two_saved, target, message
):
  with (
    checkpoint.Checkpoints(two_saved, read_only=True) as checkpoints,
    pytest.raises(ValueError, match=f"/2 holds another state: {message}"),
  ):
    checkpoints.restore(target)


_COUNT = """
  import sys
  import jax.numpy as jnp
  from tgt_jax import checkpoint

  def state(step):
    return {"w": jnp.full((300, 100), step, jnp.float32), "n": jnp.int32(step)}

  with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
    found = checkpoints.restore(state(0))
    step = 0 if found is None else found.step
    if found is not None:
      assert int(found.state["n"]) == step == found.iterator_state["at"]
      assert (found.state["w"] == step).all()
    print("from", step, flush=True)
    for step in range(step + 1, step + 200):
      checkpoints.save(step, state(step), iterator_state={"at": step})
      print("step", step, flush=True)
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
  saved = 0
  for round_ in range(2):
    process = helpers.start(_COUNT, tmp_path)
    assert process.stdout.readline() == f"from {saved}\n", process.stderr.read()
    while process.stdout.readline() != f"step {saved + 3}\n":
      assert process.poll() is None
    time.sleep(0.02 * round_)  # Wherever in the next saves this is.
    process.kill()
    _, err = process.communicate()
    assert err == ""
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
      # What was waited for by a later save is there.
      assert checkpoints.latest_step >= saved + 2
      saved = checkpoints.latest_step
