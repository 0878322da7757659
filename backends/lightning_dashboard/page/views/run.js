// One run: is it learning, which role, and what is wrong, each at the step where it began.
import { html, Badge, Empty, Fact, Score, TextField, Waiting } from "../parts/ui.js";
import { Chart } from "../parts/chart.js";
import { roleColour, seriesColour } from "../parts/theme.js";
import { useView } from "../data.js";
import { change, link, param } from "../address.js";
import { clock, count, duration, number, percent, score, scoreChange, words } from "../format.js";

// Curves of the update: those of each role where they are kept by role.
const UPDATE = [
  { title: "Loss", names: ["loss"] },
  { title: "Entropy", names: ["entropy"], note: "of the distributions that were sampled from" },
  { title: "Divergence from the sampler", names: ["kl_sampler"], note: "how far the learner's probabilities lie from those that tokens were sampled with" },
  { title: "Divergence from the reference", names: ["kl_reference"] },
  { title: "Clipped tokens", names: ["clip_fraction"], show: percent },
  { title: "Gradient", names: ["grad_norm"], note: "its norm before it is limited" },
  { title: "Learning rate", names: ["learning_rate"] },
];
const DATA = [
  { title: "Rows", names: ["rows", "trained_rows"], whole: true },
  { title: "Rows for each rollout", names: ["rows_per_rollout"], note: "1 where each conversation was merged into one row" },
  { title: "Tokens a second", names: ["tokens_per_second"] },
  { title: "Sampled tokens", names: ["tokens_trained", "tokens_masked"], whole: true },
  { title: "Staleness", names: ["staleness_mean", "staleness_max"], whole: true, note: "versions between the sampling of a token and its training" },
  { title: "Groups without a signal", names: ["groups_without_signal"] },
  { title: "Completions at the token limit", names: ["completions_truncated"], show: percent },
];
const SEARCH = [
  { title: "Best score on the selection tasks", names: ["selection_best"] },
  { title: "Candidates", names: ["candidates"] },
  { title: "Rollouts spent", names: ["rollouts_spent"] },
];

export function RunView({ run }) {
  const state = useView("run", { run });
  if (!state.data) return html`<${Waiting} state=${state} what="the run" />`;
  const { data } = state;
  const role = param("role");
  const marks = data.findings.filter((each) => each.step > 0).map((each) => ({ x: each.step, bad: each.severity === "fatal", text: each.kind }));
  const seen = { data, role, marks, roles: data.roles };
  return html`
    <${Summary} run=${run} data=${data} />
    <${Findings} run=${run} data=${data} />
    <h2 class="hidden">What it learns</h2>
    <div class="cards wide" style=${{ marginTop: "12px" }}>
      <${Rewards} ...${seen} />
      <${HeldOut} data=${data} />
    </div>
    ${data.search && html`<h2>The search</h2><div class="cards">${SEARCH.map((each) => html`<${Curve} ...${each} ...${seen} />`)}</div>`}
    ${data.curves.steps.length > 0 && html`
      <h2>The update</h2><div class="cards">${UPDATE.map((each) => html`<${Curve} key=${each.title} ...${each} ...${seen} />`)}</div>
      <h2>The data</h2><div class="cards">
        ${DATA.map((each) => html`<${Curve} key=${each.title} ...${each} ...${seen} />`)}
        <${Phases} ...${seen} /><${Failures} ...${seen} />
      </div>`}
    <${Metrics} run=${run} marks=${marks} />
    <${Messages} messages=${data.messages} />`;
}

function Summary({ run, data }) {
  const { report, last, settings } = data;
  const planned = data.kind === "training" ? settings.steps : 0;
  const done = data.curves.steps.at(-1) ?? 0;
  return html`<div class="card">
    <div class="row" style=${{ marginBottom: "12px" }}>
      <${Badge} of=${data.status} />
      ${report?.verdict && html`<${Badge} of=${report.verdict} />`}
      <span class="quiet grow wrap">${report?.error || report?.verdict_reason || data.summary}</span>
    </div>
    <div class="facts">
      ${data.kind === "training" && html`<${Fact} name=${data.search ? "round" : "step"}>${number(done)} <small>of ${number(planned)}</small><//>`}
      ${report?.change && html`<${Fact} name="change on held-out tasks" title="after minus before, by task, with its 95% interval"><${Score} score=${report.change} show=${scoreChange} /><//>`}
      <${Fact} name="model">${settings.model ?? "–"} <small>${settings.backend}</small><//>
      ${last.tokens_per_second != null && html`<${Fact} name="sampled">${number(last.tokens_per_second)} <small>tokens/s</small><//>`}
      ${last.seconds != null && html`<${Fact} name="last step">${duration(last.seconds)}<//>`}
      ${report && html`<${Fact} name="trained">${duration(report.train_seconds)}<//>`}
      ${report && html`<${Fact} name="rollouts">${number(report.rollouts)} <small>${count(report.calls, "call")}</small><//>`}
    </div>
    ${planned > 0 && data.status === "running" && html`<div class="progress" role="progressbar" aria-label="steps done" aria-valuemin="0" aria-valuemax=${planned} aria-valuenow=${done}>
      <div style=${{ width: `${(100 * done) / planned}%` }}></div></div>`}
    ${data.resumed.map((each) => html`<div class="quiet small">continued after step ${each.after_step}${Object.entries(each.changed).map(([name, [before, after]]) => `; ${name} from ${before} to ${after}`)}</div>`)}
    ${data.from_runs.length > 0 && html`<div class="quiet small">learns from the stored rollouts of ${data.from_runs.join(", ")}</div>`}
  </div>`;
}

// What `check` says.
function Findings({ run, data }) {
  if (!data.findings.length) {
    const told = data.incomplete ? "The run is being examined…" : data.findings_missing || "check finds nothing wrong.";
    return html`<p class="quiet small" style=${{ margin: "10px 4px" }}>${told}</p>`;
  }
  return html`<section class="card" aria-label="What check says" style=${{ marginTop: "12px" }}>
    <h2>What check says</h2>
    ${data.findings.map((each) => html`<div class="finding" key=${each.kind}>
      <${Badge} of=${each.severity} />
      <p class="wrap">${each.what}</p>
      ${each.step > 0 ? html`<a class="small" href=${link(["run", run, "rollouts"], { step: each.step, mode: "train" })}>since step ${each.step}</a>` : html`<span class="small quiet">from the start</span>`}
      ${(each.cause || each.remedy) && html`<p class="more wrap small">${each.cause} ${each.remedy && html`<b>${each.remedy}</b>`}</p>`}
    </div>`)}
  </section>`;
}

function Rewards({ data, role, roles, marks }) {
  const several = roles.filter(Boolean).length > 1;
  const shown = Object.keys(data.rewards).filter((each) => (role ? each === role : several ? true : each === (roles.filter(Boolean)[0] ?? "")));
  const lines = shown.filter((each) => data.rewards[each].length);
  if (!lines.length) {
    // without stored rollouts, the means that each step kept
    const { steps, series } = data.curves;
    return series.reward_mean ? html`<${Chart} title="Reward" x=${steps} series=${[{ name: "mean", values: series.reward_mean, colour: "--c0" }]} marks=${marks} height=${230} />` : null;
  }
  const x = [...new Set(lines.flatMap((each) => data.rewards[each].map((point) => point.step)))].sort((a, b) => a - b);
  const series = lines.map((each) => {
    const at = new Map(data.rewards[each].map((point) => [point.step, point]));
    const pick = (name) => x.map((step) => at.get(step)?.[name] ?? null);
    return { name: each || (several ? "whole rollout" : "reward"), values: pick("mean"), low: pick("low"), high: pick("high"), colour: several ? roleColour(roles, each) : "--c0" };
  });
  return html`<${Chart} title=${several ? "Reward by role" : "Reward"} x=${x} series=${series} marks=${marks} height=${230} show=${score}
    note="mean over the tasks of each step, with its 95% interval" />`;
}

function HeldOut({ data }) {
  const all = data.evaluations.filter((each) => each.mean !== null);
  if (!all.length) return html`<section class="card" aria-label="Held-out score"><h3>Held-out score</h3><${Empty}>Not measured yet.<//></section>`;
  const at = new Map(all.map((each) => [each.step, each])); // the last one of each step
  const x = [...at.keys()];
  const pick = (name) => x.map((step) => at.get(step)[name]);
  const last = all.at(-1);
  const failed = last.failed ? `; ${count(last.failed, "rollout")} of the last one without a score` : "";
  return html`<${Chart} title="Held-out score" x=${x} height=${230} show=${score}
    series=${[{ name: "score", values: pick("mean"), low: pick("low"), high: pick("high"), colour: "--c0", points: true, whiskers: true }]}
    note=${`${count(last.n, "task")} that are never trained on, with 95% intervals${failed}`} />`;
}

function Curve({ title, names, show, note, whole, data, role, roles, marks }) {
  const { steps, series } = data.curves;
  const lines = [];
  for (const name of names) {
    const byRole = roles.filter((each) => `${name}/${each || "none"}` in series);
    if (!whole && byRole.length > 1) {
      for (const each of byRole) if (!role || each === role) lines.push({ name: each || "no role", values: series[`${name}/${each || "none"}`], colour: roleColour(roles, each) });
    } else {
      const of = role && `${name}/${role}` in series ? `${name}/${role}` : name;
      if (of in series) lines.push({ name: words(name), values: series[of], colour: seriesColour(lines.length) });
    }
  }
  if (!lines.some((each) => each.values.some((value) => value !== null))) return null;
  return html`<${Chart} title=${title} x=${steps} series=${lines} marks=${marks} show=${show} note=${note} />`;
}

// Seconds of each phase, one above the other.
function Phases({ data, marks }) {
  const { steps, series } = data.curves;
  const names = Object.keys(series).filter((each) => each.startsWith("seconds_"));
  if (!names.length) return null;
  return html`<${Stacked} title="Time by phase" steps=${steps} marks=${marks} show=${duration} note="seconds of each step"
    parts=${names.map((each) => ({ name: words(each.slice(8)), values: series[each] }))} />`;
}

function Failures({ data, marks }) {
  const { steps, series } = data.curves;
  const names = Object.keys(series).filter((each) => each.startsWith("rollouts_") && !["rollouts_ok", "rollouts_trained", "rollouts_spent"].includes(each));
  const failed = names.filter((each) => series[each].some((value) => value > 0));
  if (!names.length) return null;
  if (!failed.length) return html`<section class="card" aria-label="Failed rollouts"><h3>Failed rollouts</h3><${Empty}>None in ${count(steps.length, "step")}.<//></section>`;
  return html`<${Stacked} title="Failed rollouts" steps=${steps} marks=${marks} parts=${failed.map((each) => ({ name: words(each.slice(9)), values: series[each] }))} />`;
}

// Areas, the tallest sum drawn first; the legend has each part's own number.
function Stacked({ title, steps, parts, marks, show = number, note }) {
  let sum = steps.map(() => 0);
  const lines = parts.map((part, place) => {
    sum = sum.map((each, at) => each + (part.values[at] ?? 0));
    return { name: part.name, values: sum, own: part.values, colour: seriesColour(place) };
  });
  return html`<${Chart} title=${title} x=${steps} series=${lines.reverse()} marks=${marks} show=${show} filled=${true} note=${note} range=${[0, Math.max(1e-9, ...sum) * 1.05]} />`;
}

// Every metric that the run kept, chosen by a regular expression.
function Metrics({ run, marks }) {
  const pattern = param("metrics");
  const names = useView("series", { run });
  const all = names.data?.names ?? [];
  let matches = [];
  let wrong = "";
  try {
    const found = new RegExp(pattern, "i");
    matches = pattern ? all.filter((each) => found.test(each)) : [];
  } catch (error) {
    wrong = error.message;
  }
  const shown = matches.slice(0, 24);
  const state = useView(shown.length ? "series" : null, { run, name: shown });
  if (!all.length) return null;
  return html`<h2>Every metric</h2>
    <div class="filters"><${TextField} label="names that match" value=${pattern} width=${260} placeholder="kl|entropy" onChange=${(metrics) => change({ metrics })} />
      <span class="quiet small">${wrong || (pattern ? `${matches.length} of ${all.length}${matches.length > shown.length ? `, the first ${shown.length} are shown` : ""}` : `${all.length} are kept; a regular expression chooses`)}</span></div>
    <div class="cards">${state.data && shown.map((name) => html`<${Chart} key=${name} title=${name} x=${state.data.steps} marks=${marks} height=${120}
      series=${[{ name: "", values: state.data.series[name] ?? [], colour: "--c0" }]} />`)}</div>`;
}

export function Messages({ messages }) {
  if (!messages.length) return null;
  return html`<h2>What the hub tells</h2><div class="card log" tabindex="0" role="log" aria-label="Messages of the hub">
    ${messages.slice(-60).reverse().map((each) => html`<div class="row" style=${{ alignItems: "baseline", flexWrap: "nowrap" }}>
      <span class="quiet mono">${clock(each.time)}</span>${each.type === "warning" && html`<${Badge} of="warning" />`}<span class="wrap">${each.text}</span></div>`)}
  </div>`;
}
