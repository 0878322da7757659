// Rollouts: a table that stays quick with 100,000 of them, and their groups with the spread in each.
import { useState } from "../vendor/parts.js";
import { html, Badge, Choice, TextField } from "../parts/ui.js";
import { LongList } from "../parts/list.js";
import { change, link, param } from "../address.js";
import { duration, number, words } from "../format.js";

const FILTERS = ["mode", "step", "evaluation", "task", "group", "status", "role", "low", "high", "text", "attempts", "runner"];

export function RolloutsView({ run }) {
  const grouped = param("by") === "group";
  const [page, setPage] = useState(null);
  const params = { run };
  for (const name of FILTERS) if (param(name)) params[name] = param(name);
  const sort = param("sort", grouped ? "step" : "started");
  const down = param("down", grouped || sort === "started" ? "1" : "0") === "1";
  const onSort = (name) => change({ sort: name, down: name === sort ? (down ? "0" : "1") : "1" });
  const shared = { params: { ...params, sort, down: down ? "1" : "0" }, sort, down, onSort, onPage: setPage };
  return html`
    <${Filters} facets=${page?.facets} grouped=${grouped} />
    <div class="row quiet small" role="status" style=${{ margin: "0 2px 8px" }}>
      ${page && html`<${Found} page=${page} grouped=${grouped} />`}
    </div>
    ${grouped ? html`<${Groups} key="groups" run=${run} shared=${shared} />` : html`<${Table} key="table" run=${run} shared=${shared} />`}`;
}

function Found({ page, grouped }) {
  if (grouped) return html`<span>${number(page.total)} groups; in ${number(page.without_signal)} every rollout earned the same, which teaches nothing</span>`;
  const { summary } = page;
  return html`<span>${number(page.total)} of ${number(page.all)} rollouts</span>
    ${summary.n > 0 && html`<span>reward ${number(summary.mean)} ± ${number(summary.std)}, from ${number(summary.low)} to ${number(summary.high)}</span>`}`;
}

function Filters({ facets, grouped }) {
  const [kept, setKept] = useState(facets);
  if (facets && facets !== kept) setKept(facets);
  const known = facets ?? kept ?? { modes: {}, statuses: {}, evaluations: {}, roles: [] };
  const options = (counts, all) => [["", all], ...Object.entries(counts).map(([name, n]) => [name, `${words(name)} (${number(n)})`])];
  const set = (name) => (value) => change({ [name]: value });
  const used = FILTERS.some((name) => param(name));
  return html`<div class="filters" role="search" aria-label="Filter">
    <div class="row" role="group" aria-label="Show as">
      <button aria-pressed=${!grouped} onClick=${() => change({ by: "", sort: "", down: "" })}>Rollouts</button>
      <button aria-pressed=${grouped} onClick=${() => change({ by: "group", sort: "", down: "" })}>Groups</button>
    </div>
    <${Choice} label="made for" value=${param("mode")} options=${options(known.modes, "everything")} onChange=${set("mode")} />
    ${Object.keys(known.evaluations).length > 0 && html`<${Choice} label="evaluation" value=${param("evaluation")} options=${options(known.evaluations, "any")} onChange=${set("evaluation")} />`}
    <${TextField} label=${known.last_step ? `step, ${known.first_step} to ${known.last_step}` : "step"} type="number" width=${92} value=${param("step")} onChange=${set("step")} />
    <${Choice} label="status" value=${param("status")} options=${options(known.statuses, "any")} onChange=${set("status")} />
    <${TextField} label="reward from" type="number" step="any" width=${84} value=${param("low")} onChange=${set("low")} />
    <${TextField} label="to" type="number" step="any" width=${84} value=${param("high")} onChange=${set("high")} />
    <${TextField} label="text in task, answer, error or reason" width=${230} value=${param("text")} onChange=${set("text")} />
    <${TextField} label="task id" width=${130} value=${param("task")} onChange=${set("task")} type="text" />
    ${param("group") && html`<${TextField} label="group" width=${90} value=${param("group")} onChange=${set("group")} type="text" />`}
    <${Choice} label="attempts" value=${param("attempts")} options=${[["", "the last"], ["all", "all"]]} onChange=${set("attempts")} />
    ${used && html`<button onClick=${() => change(Object.fromEntries(FILTERS.map((name) => [name, ""])))}>Clear</button>`}
  </div>`;
}

const place = (row) => (row.step !== null ? `step ${row.step}` : row.evaluation || words(row.mode));

function Table({ run, shared }) {
  const open = (row) => link(["run", run, "rollout"], { rollout: row.id, attempt: param("attempts") === "all" ? row.attempt : "", role: param("role") });
  const columns = [
    { name: "when", width: "92px", narrow: "60px", sort: "step", cell: (row, goes) => html`<a class="open" href=${goes}>${place(row)}</a>` },
    { name: "status", width: "128px", narrow: "82px", sort: "status", cell: (row) => html`<${Badge} of=${row.status} />` },
    { name: "reward", width: "84px", narrow: "58px", sort: "reward", right: true, cell: (row) => html`<b>${number(row.reward)}</b>` },
    { name: "task", width: "minmax(160px, 1.4fr)", sort: "task", wide: true, cell: (row) => html`<span title=${row.task}>${row.task}</span>` },
    { name: "answer", width: "minmax(0, 1fr)", cell: (row) => (row.error ? html`<span class="quiet" title=${row.error}>${row.error}</span>` : html`<span title=${row.answer}>${row.answer}</span>`) },
    { name: "took", width: "72px", sort: "seconds", right: true, wide: true, cell: (row) => duration(row.seconds) },
    { name: "try", width: "40px", sort: "attempt", right: true, wide: true, cell: (row) => row.attempt },
    { name: "group", width: "90px", wide: true, cell: (row) => html`<a href=${link(["run", run, "rollouts"], { group: row.group, mode: row.mode })}>${row.group}</a>` },
  ];
  return html`<${LongList} view="rollouts" label="Rollouts" columns=${columns} open=${open} ...${shared} />`;
}

function Groups({ run, shared }) {
  const open = (row) => link(["run", run, "rollouts"], { group: row.group, mode: row.mode, role: param("role") });
  const columns = [
    { name: "when", width: "92px", narrow: "60px", sort: "step", cell: (row, goes) => html`<a class="open" href=${goes}>${place(row)}</a>` },
    { name: "mean", width: "70px", narrow: "48px", sort: "mean", right: true, cell: (row) => html`<b>${number(row.mean)}</b>` },
    { name: "spread", width: "128px", narrow: "112px", sort: "spread", cell: (row) => html`<span class="number">${number(row.spread)}</span> <span class="bar-cell" style=${{ width: `${Math.min(64, (row.spread ?? 0) * 128)}px` }}></span>` },
    { name: "rollouts", width: "minmax(0, 1fr)", sort: "rollouts", cell: (row) => html`<${Dots} run=${run} row=${row} />` },
    { name: "failed", width: "60px", sort: "failed", right: true, wide: true, cell: (row) => number(row.failed) },
    { name: "task", width: "minmax(160px, 1.6fr)", wide: true, cell: (row) => html`<span title=${row.task}>${row.task}</span>` },
  ];
  return html`<${LongList} view="groups" label="Groups" columns=${columns} open=${open} pageSize=${50} height=${40} ...${shared} />`;
}

// A square for each rollout: the fuller, the higher its reward within the group.
function Dots({ run, row }) {
  const known = row.rollouts.map((each) => each.reward).filter((each) => each !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return html`<span class="dots">${row.rollouts.slice(0, 24).map((each) => {
    const part = each.reward === null ? 0 : high > low ? (each.reward - low) / (high - low) : 0.5;
    return html`<a href=${link(["run", run, "rollout"], { rollout: each.id, role: param("role") })} aria-label=${`rollout with reward ${number(each.reward)}, ${words(each.status)}`} title=${`${number(each.reward)}, ${words(each.status)}`}
      style=${{ background: each.status === "ok" ? `color-mix(in srgb, var(--c0) ${Math.round(15 + part * 85)}%, var(--card))` : "var(--bad-back)" }}></a>`;
  })}</span>`;
}
