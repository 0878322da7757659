// Runs over each other: a curve of each, what was set differently, and whether one is better on the same tasks.
import { html, Badge, Choice, Empty, Score, Waiting } from "../parts/ui.js";
import { Chart } from "../parts/chart.js";
import { seriesColour } from "../parts/theme.js";
import { useView } from "../data.js";
import { change, link, param, params } from "../address.js";
import { count, number, scoreChange, words } from "../format.js";

export function CompareView() {
  const names = params("run");
  const all = useView("runs", {});
  const metric = param("metric", "reward_mean");
  const state = useView(names.length ? "compare" : null, { run: names, metric });
  const toggle = (name) => change({ run: names.includes(name) ? names.filter((each) => each !== name) : [...names, name] });
  return html`
    <section class="card" aria-label="Runs to compare">
      <h2>Runs</h2>
      <div class="row" role="group" aria-label="Runs">
        ${(all.data?.runs ?? []).map((run) => html`<button key=${run.name} aria-pressed=${names.includes(run.name)} onClick=${() => toggle(run.name)}>${run.name}</button>`)}
      </div>
      <p class="quiet small" style=${{ marginTop: "8px" }}>The first one chosen is what the others are compared with.</p>
    </section>
    ${!names.length ? html`<${Empty}>Choose runs above.<//>` : !state.data ? html`<${Waiting} state=${state} what="the runs" />` : html`<${Comparison} data=${state.data} metric=${metric} />`}`;
}

function Comparison({ data, metric }) {
  const { runs } = data;
  const x = [...new Set(runs.flatMap((run) => run.curve.steps))].sort((a, b) => a - b);
  const series = runs.map((run, place) => {
    const at = new Map(run.curve.steps.map((step, row) => [step, run.curve.series[metric][row]]));
    return { name: run.name, values: x.map((step) => at.get(step) ?? null), colour: seriesColour(place) };
  });
  return html`
    <h2>Held-out scores</h2>
    <div class="card scroll"><table aria-label="Held-out scores">
      <thead><tr><th>run</th><th>status</th><th>measured</th><th>score</th><th>tasks</th><th>minus ${runs[0].name}, by task</th><th>tasks in common</th></tr></thead>
      <tbody>${runs.map((run, place) => html`<tr key=${run.name}>
        <td><i class="dot" style=${{ background: `var(${seriesColour(place)})`, marginRight: "6px" }}></i><a href=${link(["run", run.name, "run"])}>${run.name}</a></td>
        <td><${Badge} of=${run.status} /></td>
        <td>${run.held_out?.name ?? "–"}</td><td><${Score} score=${run.held_out} /></td><td>${number(run.held_out?.n)}</td>
        <td>${run.difference ? html`<${Score} score=${run.difference} show=${scoreChange} /> ${verdict(run.difference)}` : html`<span class="quiet">compared with this one</span>`}</td>
        <td>${run.difference ? number(run.difference.n) : ""}</td></tr>`)}</tbody>
    </table></div>
    <h2>Curves</h2>
    <div class="filters"><${Choice} label="metric" value=${metric} options=${[...new Set([metric, ...data.metrics])].map((name) => [name, words(name)])} onChange=${(name) => change({ metric: name })} /></div>
    ${series.some((each) => each.values.some((value) => value !== null))
      ? html`<${Chart} title=${words(metric)} x=${x} series=${series} height=${280} />`
      : html`<section class="card"><${Empty}>None of them has this metric.<//></section>`}
    <h2>Settings that differ</h2>
    <div class="card scroll">${data.settings.length
      ? html`<table aria-label="Settings that differ"><thead><tr><th>setting</th>${runs.map((run) => html`<th>${run.name}</th>`)}</tr></thead>
          <tbody>${data.settings.map((each) => html`<tr><th scope="row" class="mono">${each.name}</th>${each.values.map((value) => html`<td class="mono wrap">${String(value)}</td>`)}</tr>`)}</tbody></table>`
      : html`<${Empty}>${runs.length > 1 ? "None: all settings are the same." : `Choose a second run. ${count(1, "run")} is chosen.`}<//>`}</div>`;
}

function verdict(difference) {
  if (difference.low === null) return html`<span class="quiet small">${difference.missing}</span>`;
  return difference.verdict === "no more than chance" ? html`<${Badge} text=${difference.verdict} />` : html`<${Badge} of=${difference.verdict} />`;
}
