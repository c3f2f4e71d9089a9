# SPDX-License-Identifier: Apache-2.0
"""One page about a run: `report.html`, from the files of its workdir.

  python -m tgt_jax.report --workdir=runs/digits

The page stands alone: pictures are inside it, nothing is fetched, no script
runs. It is built from `results.json` and, where they are there,
`metrics.jsonl` (curves), `gallery.npz` (exploration), `influence.npz` of arms,
`config.json` and `student.json`, so it can be built again at any time.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tgt_jax import files, pictures, results as results_lib, tables, writers
from tgt_jax.results import Results

REPORT = "report.html"
METRICS = "metrics.jsonl"
GALLERY = "gallery.npz"
INFLUENCE = "influence.npz"
CONFIG = "config.json"
CARD = "student.json"

_PANELS = 9
# Metrics that open the figure of curves, the first that exists of each row.
_FIRST = (("eval/balanced", "eval/accuracy"), ("eval/agreement",))

_STYLE = """
:root { color-scheme: light dark; --text: #1d1f23; --soft: #5d6168;
  --page: #ffffff; --line: #d9dbdf; --fill: #f4f5f6; --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e5e8; --soft: #9aa0a8;
  --page: #16181d; --line: #363a42; --fill: #1f2228; --mark: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem;
  background: var(--page); color: var(--text); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; } .lead, .note, figcaption { color: var(--soft); }
.note, figcaption { font-size: .87rem; max-width: 48rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .6rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
th.l, td.l { text-align: left; padding-left: 0; }
tbody tr:hover { background: var(--fill); }
tr.rule td { border-top: 1px solid var(--line); }
td.text { white-space: normal; min-width: 24rem; }
mark { background: none; color: var(--mark); font-weight: 600; }
td.best { font-weight: 700; color: var(--mark); }
td.best::after { content: "*"; position: absolute; }
figure { margin: 1rem 0 1.4rem; overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem;
  margin: .6rem 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--fill); padding: .8rem 1rem; border-radius: 6px;
  overflow-x: auto; font-size: .84rem; line-height: 1.45; }
summary { cursor: pointer; color: var(--mark); }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure { break-inside: avoid; } }
"""


def _escape(text: Any) -> str:
  return html.escape(str(text), quote=True)


def _figure(data: bytes, alt: str, caption: str = "", *, dpi: int) -> str:
  """Returns a picture with its caption, at its natural size."""
  width, height = (round(96 * s / dpi) for s in pictures.png_size(data))
  encoded = base64.b64encode(data).decode()
  text = f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
  return (
    f'<figure><img alt="{_escape(alt)}" width="{width}" height="{height}"'
    f' src="data:image/png;base64,{encoded}">{text}</figure>'
  )


def _section(title: str, *parts: str) -> str:
  body = "\n".join(part for part in parts if part)
  return f"<section><h2>{_escape(title)}</h2>\n{body}</section>" if body else ""


def _definitions(pairs: Mapping[str, Any]) -> str:
  rows = "".join(
    f"<dt>{_escape(key)}</dt><dd>{_escape(value)}</dd>"
    for key, value in pairs.items()
    if value not in (None, "")
  )
  return f"<dl>{rows}</dl>" if rows else ""


def curves_of(
  records: Iterable[Mapping[str, Any]],
) -> dict[str, dict[str, pictures.Curve]]:
  """Returns `{metric: {arm: curve}}` of the lines of `metrics.jsonl`.

  A step that is there twice counts once, with its last value; a line without
  a seed counts as seed 0.
  """
  points: dict[str, dict[str, dict[int, dict[int, float]]]] = {}
  for record in records:
    seeds = record.get("seeds", [record.get("seed", 0)])
    for name, value in record.items():
      if "/" not in name:
        continue
      values = value if isinstance(value, list) else [value] * len(seeds)
      arm = points.setdefault(name, {}).setdefault(record["arm"], {})
      for seed, number in zip(seeds, values, strict=True):
        number = np.nan if number is None else float(number)
        arm.setdefault(seed, {})[record["step"]] = number
  return {
    name: {arm: _curve(seeds) for arm, seeds in arms.items()}
    for name, arms in points.items()
  }


def _curve(seeds: Mapping[int, Mapping[int, float]]) -> pictures.Curve:
  steps = sorted({step for seed in seeds.values() for step in seed})
  values = [[seed.get(s, np.nan) for s in steps] for seed in seeds.values()]
  return pictures.Curve(np.array(steps), np.array(values, float))


def _choose_panels(
  curves: Mapping[str, Mapping[str, pictures.Curve]], arms: Sequence[str]
) -> dict[str, dict[str, pictures.Curve]]:
  """Returns the panels worth a look, lines in the order of the arms."""
  shown = {
    name: {arm: found[arm] for arm in arms if arm in found}
    for name, found in curves.items()
  }
  shown = {name: panel for name, panel in shown.items() if panel}
  order = [next((n for n in row if n in shown), None) for row in _FIRST]
  for prefix in ("loss/", "explore/", "teacher/", ""):
    order += sorted(n for n in shown if n.startswith(prefix))
  names = [name for name in dict.fromkeys(order) if name is not None]
  # Once the first is chosen, its alternatives say little more.
  skip = {n for row in _FIRST for n in row} - set(names[:2])
  return {name: shown[name] for name in names if name not in skip}


def _curves(workdir: pathlib.Path, results: Results) -> str:
  if not (workdir / METRICS).is_file():
    return ""
  curves = curves_of(writers.read_metrics(workdir / METRICS))
  arms = [arm.name for arm in results.arms]
  figures = []
  panels = _choose_panels(curves, arms)
  if panels:
    panels = dict(list(panels.items())[:_PANELS])
    text = "Means over seeds; the bands are ± one standard deviation."
    figures.append(
      _figure(pictures.curves(panels), "Curves", text, dpi=pictures.DPI)
    )
  others = {a for found in curves.values() for a in found} - set(arms)
  panels = _choose_panels(curves, sorted(others))
  if panels:
    panels = dict(list(panels.items())[:_PANELS])
    image = _figure(pictures.curves(panels), "Teacher", dpi=pictures.DPI)
    figures.append(f"<details><summary>Teacher</summary>{image}</details>")
  return _section("Training curves", *figures)


def _floats(values: Sequence[float | None]) -> list[float]:
  return [np.nan if value is None else value for value in values]


def _classes(results: Results) -> str:
  """Returns the sections on classes, or tags: their counts and accuracy."""
  counts = np.array(results.class_counts)
  names, groups = results.class_names, results.groups
  accuracy = {
    arm.name: np.array([_floats(seed.per_class) for seed in arm.seeds])
    for arm in results.arms
    if arm.seeds and all(len(s.per_class) == len(counts) for s in arm.seeds)
  }
  tags = any("map" in s.metrics for arm in results.arms for s in arm.seeds)
  value = "average precision" if tags else "accuracy"
  title = f"{value} per class".capitalize()
  parts = []
  if accuracy and len(counts):
    parts.append(
      _figure(
        pictures.per_class(counts, accuracy, names, value=value),
        title,
        "Classes in order of their training examples, most frequent left;"
        " means over seeds ± one standard deviation.",
        dpi=pictures.DPI,
      )
    )
  histogram = ""
  if len(counts):
    ratio = counts.max() / max(1, counts.min())
    histogram = _figure(
      pictures.class_histogram(counts, groups, names),
      "Training examples per class",
      f"{counts.sum():,} training examples in {len(counts)} classes; the most"
      f" frequent has {ratio:.3g} times as many as the rarest.",
      dpi=pictures.DPI,
    )
  return _section(title, *parts) + _section("The long tail", histogram)


def _images(gallery: pictures.Gallery) -> str:
  return _figure(
    pictures.draw_gallery(gallery),
    "Examples, their reconstructions and their neighbours",
    "Rows are examples, with their true class. Below each image: the classes"
    " that the student and the teacher find most probable. Δ is the difference"
    " from the reconstruction, its length in pixel values.",
    dpi=192,
  )


def _gallery(workdir: pathlib.Path) -> str:
  if not (workdir / GALLERY).is_file():
    return ""
  gallery = pictures.load_gallery(workdir / GALLERY)
  if pictures.is_text(gallery):
    note = (
      "Each example with its true class, its reconstruction and its"
      " neighbours; words that differ from the example are marked, and the"
      " teacher's class where it changes."
    )
    parts = [pictures.texts_table(gallery), f'<p class="note">{note}</p>']
  else:
    parts = [_images(gallery)]
  if len(gallery.views) > 2:
    before, *after = gallery.disagreement[1:]
    names = gallery.views[2:]
    parts.append(
      _figure(
        pictures.disagreement(
          dict.fromkeys(names, before), dict(zip(names, after, strict=True))
        ),
        "Disagreement before and after exploration",
        f"Disagreement of student and teacher on {len(before)} examples:"
        " at the reconstruction, and where exploration went from there.",
        dpi=pictures.DPI,
      )
    )
  return _section("Exploration", *parts)


def _influence(workdir: pathlib.Path, results: Results) -> str:
  arms = sorted(results.arms, key=lambda arm: arm.name != results.main_arm)
  paths = {arm.name: workdir / "arms" / arm.name / INFLUENCE for arm in arms}
  tables_of = [
    pictures.ranked_table(pictures.load_ranked(path), name)
    for name, path in paths.items()
    if path.is_file()
  ]
  return _section("Influence of training examples", *tables_of)


def _student(workdir: pathlib.Path) -> str:
  if not (workdir / CARD).is_file():
    return ""
  folder = json.dumps(str(workdir))
  shape = files.read_json(workdir / CARD).get("input_shape", ())
  x = "images  # float32 [B, H, W, C] in [0, 1]"
  if len(shape) == 1:
    x = f"token_ids  # int32 [B, {shape[0]}], of tokenizer.json there"
  code = (
    "from tgt_jax import export\n\n"
    f"student = export.load_student({folder})\n"
    f"x = {x}\n"
    "outputs, _ = student.network.apply(\n"
    "  student.params, student.model_state, x)\n"
    "classes = outputs.logits.argmax(-1)"
  )
  return _section("Use the student", f"<pre>{_escape(code)}</pre>")


def _about(workdir: pathlib.Path, results: Results) -> str:
  pairs = {f"{name} split": text for name, text in results.splits.items()}
  pairs |= {"evaluated at": results.selection, "hardware": results.hardware}
  for arm in results.arms:
    if arm.wall_seconds is not None:
      pairs[f"time of {arm.name}"] = f"{arm.wall_seconds:.1f} s per seed"
  pairs |= {f"{k} fingerprint": v for k, v in results.fingerprints.items()}
  pairs["versions"] = ", ".join(f"{k} {v}" for k, v in results.versions.items())
  command = f"<pre>{_escape(results.command)}</pre>" if results.command else ""
  config = ""
  if (workdir / CONFIG).is_file():
    found = files.read_json(workdir / CONFIG)
    text = json.dumps(found, indent=2, ensure_ascii=False)
    config = (
      "<details><summary>Configuration</summary>"
      f"<pre>{_escape(text)}</pre></details>"
    )
  return _section("How it was made", command, _definitions(pairs), config)


def _table(results: Results) -> str:
  known = {
    metric: None
    for arm in results.arms
    for seed in arm.seeds
    for metric, value in seed.metrics.items()
    if value is not None
  }
  columns = [m for m in results.columns if m in known]
  main_table = results_lib.results_table(results, columns=columns)
  parts = [tables.render(main_table, style="html")]
  others = [m for m in known if m not in results.columns]
  if others:
    more = results_lib.results_table(results, columns=others)
    text = tables.render(more._replace(notes=()), style="html")
    title = "<summary>Other metrics</summary>"
    parts.append(f"<details>{title}{text}</details>")
  methods = {arm.name: arm.method for arm in results.arms}
  if results.teacher is not None:
    methods["teacher"] = results.teacher.description
  return _section("Results", *parts, _definitions(methods))


def render_report(workdir: str | pathlib.Path) -> str:
  """Returns the page as HTML.

  Args:
    workdir: of a run that has a `results.json`.

  Raises:
    FileNotFoundError: no results there.
    ValueError: a file that is there but damaged.
  """
  workdir = pathlib.Path(workdir)
  results = results_lib.read_results(workdir)
  lead = (
    f"{len(results.arms)} arm{'s' if len(results.arms) > 1 else ''}; the"
    f" exported student is the first of {results.main_arm}."
  )
  body = "\n".join(
    [
      f"<h1>{_escape(results.title)}</h1>",
      f'<p class="lead">{_escape(lead)}</p>',
      _table(results),
      _curves(workdir, results),
      _gallery(workdir),
      _influence(workdir, results),
      _classes(results),
      _student(workdir),
      _about(workdir, results),
    ]
  )
  # The policy is the browser's word for "nothing is fetched, nothing runs".
  policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{_escape(results.title)}</title>\n<style>{_STYLE}</style>\n"
    f"</head><body>\n{body}\n</body></html>\n"
  )


def write_report(
  workdir: str | pathlib.Path, output: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Writes the page, `report.html` in the workdir unless told, and its path."""
  path = pathlib.Path(output or pathlib.Path(workdir) / REPORT)
  files.atomic_write(path, render_report(workdir).encode())
  return path


def main(argv: Sequence[str] | None = None) -> None:
  """Builds the report of a finished run from the command line."""
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.report",
    description="Builds report.html again from the files of a finished run.",
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument("--output", help="file to write; WORKDIR/report.html")
  args = parser.parse_args(argv)
  try:
    path = write_report(args.workdir, args.output)
  except (OSError, ValueError) as error:
    parser.exit(2, f"{parser.prog}: error: {error}\n")
  sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
  main()
