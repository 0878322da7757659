// A page that was exported as one file: the views' answers from the data inside it, which has no server to filter it.

// What a view shows. Throws an Error that says what the file does not have.
export function answerFrom(kept, view, params) {
  if (view === "runs") return kept.runs;
  if (view === "compare") return compare(kept, [params.run].flat(), params.metric);
  const of = kept.of[params.run];
  if (!of) throw new Error(`${params.run} is not in this file`);
  if (view === "series") return { ...of.series, series: pick(of.series.series, [params.name ?? []].flat()) };
  if (view === "rollouts") return rollouts(of, params);
  if (view === "groups") return groups(of, params);
  if (["rollout", "tokens", "call"].includes(view)) return ofRollout(of, view, params);
  if (!of[view]) throw new Error("this is not in the file");
  return of[view];
}

// What the file is, and what of a run it does not have.
export function describeFile(kept, run) {
  const of = kept.of[run];
  return of ? `${kept.made} ${of.note}` : kept.made;
}

const pick = (values, names) => Object.fromEntries(names.filter((name) => name in values).map((name) => [name, values[name]]));

function ofRollout(of, view, params) {
  const found = of.rollouts[params.rollout];
  if (!found || (params.attempt && Number(params.attempt) !== found.attempt)) throw new Error(`This rollout, or this attempt at it, is not in the file. ${of.note}`);
  return view === "call" ? found.calls[params.call] : found[view];
}

function rollouts(of, params) {
  const found = select(of, params);
  const { sort = "started" } = params;
  const sorted = inOrder(found, (params.down ?? (sort === "started" ? "1" : "0")) === "1", (row) => valueOf({ ...row, task: Number(row.task_id) }, sort));
  const counts = (name) => Object.fromEntries([...new Set(of.rows.map((row) => row[name]))].filter(Boolean).sort().map((value) => [value, of.rows.filter((row) => row[name] === value).length]));
  return {
    ...page(sorted, params), all: of.all, summary: summary(found.map((row) => row.reward).filter((reward) => reward !== null)),
    facets: { modes: counts("mode"), statuses: counts("status"), evaluations: counts("evaluation"), roles: of.roles },
  };
}

// Whole groups, as the run had them, of which a rollout that matches is in the file.
function groups(of, params) {
  const shown = new Set(select(of, params).map((row) => `${row.mode} ${row.group}`));
  const found = (of.groups[params.role ?? ""] ?? []).filter((row) => shown.has(`${row.mode} ${row.group}`));
  const { sort = "step", down = "1" } = params;
  const sorted = inOrder(found, down === "1", (row) => (sort === "rollouts" ? row.rollouts.length : valueOf(row, sort)));
  return { ...page(sorted, params), without_signal: found.filter((row) => row.spread === 0).length };
}

const page = (rows, { offset = 0, limit = 100 }) => ({ total: rows.length, offset, rows: rows.slice(offset, offset + limit) });

// The rollouts that the filters let through, each with what the chosen role earned.
function select(of, params) {
  const { role = "", low, high, step, task } = params;
  const text = params.text?.toLowerCase();
  return of.rows
    .map((row) => ({ ...row, reward: row.scores[role] ?? null }))
    .filter((row) =>
      ["mode", "evaluation", "status", "group", "runner"].every((name) => !params[name] || [params[name]].flat().includes(row[name]))
      && (!step || row.step === Number(step)) && (!task || row.task_id === String(task))
      && (!role || row.reward !== null || row.status !== "ok")
      && (!low || (row.reward !== null && row.reward >= Number(low))) && (!high || (row.reward !== null && row.reward <= Number(high)))
      && (!text || words(of.rollouts[row.id].rollout).includes(text)));
}

const words = (rollout) => [rollout.id, JSON.stringify(rollout.task), rollout.answer, rollout.error, ...rollout.rewards.map((each) => each.why)].join("\n").toLowerCase();

// What a row is sorted by: one without a step, or that has not begun, comes before all others, as on the server.
const valueOf = (row, sort) => row[sort] ?? { step: -1, started: 0 }[sort];

// By one value, what has none last; the newest first among equals.
function inOrder(rows, down, value) {
  const compareValues = (a, b) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return a < b === down ? 1 : -1;
  };
  return [...rows].sort((a, b) => compareValues(value(a), value(b)) || (b.started ?? 0) - (a.started ?? 0));
}

function summary(rewards) {
  const n = rewards.length;
  if (!n) return { n: 0, mean: null, std: null, low: null, high: null };
  const mean = rewards.reduce((sum, each) => sum + each, 0) / n;
  const std = Math.sqrt(rewards.reduce((sum, each) => sum + (each - mean) ** 2, 0) / n);
  return { n, mean, std, low: Math.min(...rewards), high: Math.max(...rewards) };
}

function compare(kept, names, metric = "reward_mean") {
  const [first] = names;
  const places = names.map((name) => kept.compare.names.indexOf(name));
  const known = names.filter((name) => kept.of[name]);
  return {
    metric,
    metrics: [...new Set(known.flatMap((name) => kept.of[name].series.names))],
    runs: known.map((name) => {
      const { steps, every, series } = kept.of[name].series;
      const curve = { steps, every, series: { [metric]: series[metric] ?? steps.map(() => null) } };
      return { ...kept.compare.runs[name], name, curve, difference: name === first ? null : kept.compare.differences[first][name] };
    }),
    settings: kept.compare.settings
      .map((each) => ({ name: each.name, values: places.map((place) => each.values[place]) }))
      .filter((each) => each.values.some((value) => value !== each.values[0])),
  };
}
