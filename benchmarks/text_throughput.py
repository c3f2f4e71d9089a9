# SPDX-License-Identifier: Apache-2.0
"""How fast encoders of text run and learn, and how fast a text is written.

  python benchmarks/text_throughput.py --json=text_throughput.json

(a) The forward pass of BERT and (b) its update, by the package's own step with
Adam, against `transformers` on PyTorch, eager and compiled, with the same
weights, texts and number of threads. (c) Tokens that BART writes in a second,
greedily and with a cache, the encoder's pass included, against transformers'
`generate`, both made to write the same number. All take turns in one process;
that both sides compute the same is said before the times.

Texts have lengths between half of `--length` and all of it, in one padded
batch. `--base` adds the sizes of BERT-base and BART-base. With a GPU, which
JAX takes by default:

  python benchmarks/text_throughput.py --base --batch_size=256 --length=128 \
    --dtype=bfloat16 --peak_tflops=989

prints the share of the peak too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import common

_BERT = {
  "tiny": {"num_layers": 2, "width": 128, "num_heads": 2, "mlp_width": 512},
  "minilm": {"num_layers": 6, "width": 384, "num_heads": 12, "mlp_width": 1536},
  "base": {"num_layers": 12, "width": 768, "num_heads": 12, "mlp_width": 3072},
}
_BART = {
  "small": {"num_layers": 3, "width": 256, "num_heads": 4, "mlp_width": 1024},
  "base": {"num_layers": 6, "width": 768, "num_heads": 12, "mlp_width": 3072},
}
_VOCAB = {"bert": 30522, "bart": 50265}
_PAD, _EOS, _FIRST = {"bert": 0, "bart": 1}, 2, 200


def _arguments() -> Any:
  options = common.parser(__doc__)
  options.set_defaults(rounds=5)
  options.add_argument(
    "--bert", nargs="*", choices=_BERT, default=["tiny", "minilm"]
  )
  options.add_argument("--bart", nargs="*", choices=_BART, default=["small"])
  options.add_argument(
    "--base", action="store_true", help="BERT-base and BART-base too"
  )
  options.add_argument("--batch_size", type=int, default=16)
  options.add_argument("--length", type=int, default=64, help="of the texts")
  options.add_argument(
    "--written", type=int, default=32, help="tokens, by BART"
  )
  options.add_argument("--dropout", type=float, default=0.1, help="in updates")
  options.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  options.add_argument(
    "--peak_tflops", type=float, help="of the device, for the share of peak"
  )
  options.add_argument(
    "--no_torch", action="store_true", help="leave PyTorch out"
  )
  options.add_argument(
    "--no_compile", action="store_true", help="leave torch.compile out"
  )
  return options.parse_args()


def _texts(args: Any, family: str) -> Any:
  """Random texts, int32 [B, L], padded."""
  import numpy as np

  draws = np.random.default_rng(0)
  shape = args.batch_size, args.length
  x = draws.integers(_FIRST, _VOCAB[family], shape)
  lengths = draws.integers(args.length // 2, args.length + 1, args.batch_size)
  lengths[0] = args.length
  x[np.arange(args.length) >= lengths[:, None]] = _PAD[family]
  return x.astype(np.int32)


class Update:
  """An encoder's update as the package compiles it; waits for the result.

  Attributes:
    traced: its jaxpr, for counting.
  """

  def __init__(self, network: Any, batch: Mapping[str, Any]):
    import jax

    from tgt_jax import losses, methods, training

    def init(rng, batch):
      params, model_state = network.init(rng, batch["input"])
      return {"student": params}, {"student": model_state}

    tx = training.make_optimizer(
      "adam", learning_rate=1e-5, steps=10**6, schedule="constant"
    )
    loss = methods.labeler_loss(network, losses.cross_entropy)
    method = methods.from_loss(loss, init, tx)
    self._batch = jax.tree.map(lambda a: a[None], batch)
    self._root = training.roots((0,))
    first = training.jit_once(training.initializer(method))
    self._state = first(self._root, self._batch)
    self._totals = training.empty_totals(
      method, self._state, {}, self._batch, self._root
    )
    self._step = training.make_step(method)
    self.traced = self._step.trace(*self._arguments()).jaxpr

  def _arguments(self) -> tuple[Any, ...]:
    return self._state, self._totals, {}, self._batch, self._root

  def params(self) -> Any:
    """Copies of the network's parameters: a step's are given away."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda a: jnp.copy(a[0]), self._state.params["student"])

  def __call__(self) -> None:
    """One update."""
    import jax

    self._state, self._totals = self._step(*self._arguments())
    jax.block_until_ready(self._state)


def _bert(name: str, args: Any) -> Iterator[dict[str, Any]]:
  """Forward pass and update of one size."""
  import flops
  import jax
  import numpy as np
  from setting import waiting

  from tgt_jax.models import bert

  sizes = {
    **_BERT[name],
    "num_classes": 4,
    "vocab_size": _VOCAB["bert"],
    "max_positions": max(512, args.length),
    "pad_id": _PAD["bert"],
    "dropout": args.dropout,
  }
  network = bert(**sizes, dtype=args.dtype)
  label = np.arange(args.batch_size, dtype=np.int32) % sizes["num_classes"]
  given = {"input": _texts(args, "bert"), "label": label}
  batch = jax.device_put(given)
  update = Update(network, batch)
  params = update.params()
  read = lambda params, x: network.apply(params, {}, x)[0].logits
  ours = {"forward": waiting(read, params, batch["input"]), "update": update}
  jaxprs = {
    "forward": jax.make_jaxpr(read)(params, batch["input"]),
    "update": update.traced,
  }
  rivals: dict[str, dict[str, Callable]] = {"forward": {}, "update": {}}
  if not args.no_torch:
    import torch_texts

    make = lambda **form: torch_texts.Bert(
      sizes, params, given, dtype=args.dtype, **form
    )
    for stage in rivals:
      rivals[stage] = torch_texts.forms(
        make, stage, compiled=not args.no_compile
      )
    logits = np.asarray(ours["forward"]())
    for form, forward in rivals["forward"].items():
      gap = np.abs(forward() - logits).max() / np.abs(logits).max()
      print(f"BERT {name}: {form}, largest difference of logits {gap:.1e}")
  for stage, function in ours.items():
    yield _row(
      f"BERT {name}, {stage}",
      {"ours": function, **rivals[stage]},
      work=flops.count(jaxprs[stage]),
      unit="texts",
      count=args.batch_size,
      args=args,
    )


def _bart(name: str, args: Any) -> Iterator[dict[str, Any]]:
  """Greedy decoding by one size."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from setting import waiting

  from tgt_jax import training
  from tgt_jax.models import bart as bart_lib, decoding, transformer

  sizes = {
    **_BART[name],
    "num_decoder_layers": _BART[name]["num_layers"],
    "vocab_size": _VOCAB["bart"],
    "max_positions": max(1024, args.length, args.written),
    "pad_id": _PAD["bart"],
  }
  module = bart_lib.bart(**sizes, dtype=args.dtype)
  x = _texts(args, "bart")
  params = training.jit_once(module.init)(jax.random.key(0), x[:1])["params"]
  # No text ends early, on either side.
  params["logits_bias"] = params["logits_bias"].at[_EOS].set(-1e4)
  # Else random weights write one token for ever, and so would wrong ones.
  places = params["decoder_positions"]
  places["embedding"] = 16.0 * places["embedding"]

  def write(params, x):
    states = module.apply({"params": params}, x, method="encode")
    mask = transformer.token_mask(x, module.pad_id)
    step, past = bart_lib.decoder(
      module, params, states, mask, max_length=args.written
    )
    return decoding.greedy(step, past, count=len(x), length=args.written)

  contenders = {"ours": waiting(write, params, jnp.asarray(x))}
  if not args.no_torch:
    import torch_texts

    theirs = torch_texts.Bart(
      sizes, params, x, length=args.written, dtype=args.dtype
    )
    contenders["torch eager"] = theirs.write
    written = np.asarray(contenders["ours"]())
    print(
      f"BART {name}: {np.mean(written == theirs.write()):.1%} of the tokens are"
      f" the same, {len(np.unique(written))} different ones"
    )
  yield _row(
    f"BART {name}, writing",
    contenders,
    work={},
    unit="tokens",
    count=args.batch_size * args.written,
    args=args,
  )


def _row(
  name: str,
  contenders: Mapping[str, Callable[[], Any]],
  *,
  work: Mapping[str, int],
  unit: str,
  count: int,
  args: Any,
) -> dict[str, Any]:
  """Times one thing in all its forms."""
  times = common.take_turns(
    contenders, rounds=args.rounds, seconds=args.seconds, clock=args.clock
  )
  seconds = times.ms("ours") * 1e-3
  row: dict[str, Any] = {
    "what": name,
    "times": times.report(),
    f"{unit}_per_second": count / seconds,
    "per_second": f"{count / seconds:.0f} {unit}",
    "operations": dict(work),
    "tflop_per_second": sum(work.values()) / seconds * 1e-12,
  }
  if args.peak_tflops and work:
    row["share_of_peak"] = row["tflop_per_second"] / args.peak_tflops
  rivals = [form for form in contenders if form != "ours"]
  if rivals:
    best = times.fastest(rivals)
    row |= {"best_torch": best, "torch_over_ours": times.ratio(best, "ours")}
  return row


def _table(rows: list[dict[str, Any]]) -> str:
  header = ["", "ms", "per second", "TFLOP/s", "share of peak"]
  header += ["PyTorch eager", "compiled", "best PyTorch / ours"]
  cells = []
  for row in rows:
    ms = lambda form, row=row: (
      f"{row['times'][form]['median_ms']:.1f}" if form in row["times"] else "-"
    )
    shown = lambda key, form, row=row: (
      format(row[key], form) if row.get(key) else "-"
    )
    cells.append(
      [row["what"], ms("ours"), row["per_second"]]
      + [shown("tflop_per_second", ".3f"), shown("share_of_peak", ".1%")]
      + [ms("torch eager"), ms("torch compile")]
      + [shown("torch_over_ours", ".2f")]
    )
  return common.table(header, cells)


def main() -> None:
  args = _arguments()
  cores = common.prepare(args.threads)
  where = common.environment(cores)
  print(common.describe(where))
  if not args.no_torch:
    try:
      import torch_texts
    except ImportError as error:
      print(f"PyTorch is left out: {error}")
      args.no_torch = True
    else:
      torch_texts.use_threads(cores)
  more = ["base"] if args.base else []
  sizes = {
    _bert: dict.fromkeys([*args.bert, *more]),
    _bart: dict.fromkeys([*args.bart, *more]),
  }
  rows = []
  for measure, names in sizes.items():
    for name in names:
      for row in measure(name, args):
        rows.append(row)
        print(_table([row]), flush=True)
  print(
    f"\nbatch {args.batch_size}, length {args.length}, {args.written} written,"
    f" {args.dtype}, dropout {args.dropout}, {args.clock} clock, medians"
  )
  print(_table(rows))
  report = {"environment": where, "arguments": vars(args)}
  common.finish(args.json, {**report, "rows": rows})


if __name__ == "__main__":
  main()
