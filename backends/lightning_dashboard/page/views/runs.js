// The list of runs.
import { html, Badge, Empty, Score, Waiting } from "../parts/ui.js";
import { useView } from "../data.js";
import { link } from "../address.js";
import { ago, duration, number, scoreChange } from "../format.js";

export function RunsView() {
  const state = useView("runs", {});
  if (!state.data) return html`<${Waiting} state=${state} what="the runs" />`;
  const { runs, places } = state.data;
  if (!runs.length) return html`<${Empty}>No run in ${places.join(", ")} yet. One begins with: lightning-sdk train<//>`;
  return html`<div class="card scroll">
    <table aria-label="Runs">
      <thead><tr><th>run</th><th>status</th><th>steps</th><th>reward</th><th>before</th><th>after</th><th>change</th><th>verdict</th><th>trained</th><th>changed</th></tr></thead>
      <tbody>${runs.map((run) => html`<tr key=${run.name}>
        <td><a href=${link(["run", run.name, "run"])}><b>${run.name}</b></a><div class="quiet small">${run.kind}, ${run.model ?? "no model"}</div></td>
        <td><${Badge} of=${run.status} /></td>
        <td class="number">${number(run.steps)}${run.kind === "training" && run.planned ? html`<span class="quiet"> of ${run.planned}</span>` : ""}</td>
        <td><${Spark} values=${run.rewards} /></td>
        <td><${Score} score=${run.before} /></td>
        <td><${Score} score=${run.after} /></td>
        <td><${Score} score=${run.change} show=${scoreChange} /></td>
        <td>${run.verdict ? html`<${Badge} of=${run.verdict} />` : "–"}</td>
        <td class="number">${duration(run.train_seconds)}</td>
        <td class="quiet">${ago(run.changed)}</td>
      </tr>`)}</tbody>
    </table>
  </div>`;
}

// A curve without axes.
function Spark({ values }) {
  const known = values.filter((each) => each !== null && each !== undefined);
  if (known.length < 2) return html`<span class="quiet">–</span>`;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const points = values.map((each, at) => (each === null ? "" : `${((at / (values.length - 1)) * 90).toFixed(1)},${(22 - ((each - low) / (high - low || 1)) * 20).toFixed(1)}`));
  return html`<svg width="90" height="24" role="img" aria-label=${`mean reward by step, from ${number(known[0])} to ${number(known.at(-1))}`}>
    <polyline points=${points.filter(Boolean).join(" ")} fill="none" stroke="var(--c0)" stroke-width="1.5" /></svg>`;
}
