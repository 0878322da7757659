// The search for better prompts: candidates below what they were made from, their scores and texts, and what reflection
// read and wrote.
import { diffWordsWithSpace } from "../vendor/parts.js";
import { html, Badge, Empty, Fact, LongText, Score, Waiting } from "../parts/ui.js";
import { useView } from "../data.js";
import { change, link, param } from "../address.js";
import { count, number, score } from "../format.js";

const STATES = { accepted: "ok", rejected: "unfinished", refused: "failed", seed: "", proposed: "running" };

export function PromptsView({ run }) {
  const state = useView("prompts", { run });
  if (state.error) return html`<${Empty}>${state.error}<//>`;
  if (!state.data) return html`<${Waiting} state=${state} what="the candidates" />`;
  const { data } = state;
  const shown = data.candidates.find((each) => each.id === param("candidate")) ?? data.candidates.find((each) => each.chosen) ?? data.candidates[0];
  return html`
    <section class="card" aria-label="The search"><div class="facts">
      <${Fact} name="candidates">${number(data.candidates.length)}<//>
      <${Fact} name="chosen">${data.chosen || "not yet"} ${data.verdict && html`<${Badge} of=${data.verdict} />`}<//>
      ${["before", "after"].filter((name) => data.held_out[name]).map((name) => html`<${Fact} name=${`held-out score ${name}`}><${Score} score=${data.held_out[name]} /><//>`)}
      <${Fact} name="reflection was asked">${count(data.replies.length, "time")}<//>
    </div></section>
    <div class="two" style=${{ marginTop: "12px" }}>
      <section class="card scroll" aria-label="Candidates"><h2>Candidates</h2><${Lineage} candidates=${data.candidates} shown=${shown} /></section>
      <section class="card" aria-label="The candidate"><${Candidate} key=${shown.id + shown.state} run=${run} data=${data} candidate=${shown} /></section>
    </div>`;
}

// Each candidate below the first of its parents.
function Lineage({ candidates, shown }) {
  const below = new Map();
  const known = new Set(candidates.map((each) => each.id));
  const first = new Map();
  for (const each of candidates) {
    if (!first.has(each.id)) first.set(each.id, each);
    const parent = each.parents.find((id) => known.has(id) && id !== each.id) ?? "";
    below.set(parent, [...(below.get(parent) ?? []), each]);
  }
  const lines = [];
  const walk = (each, depth, above) => {
    lines.push({ each, depth });
    if (first.get(each.id) !== each || above.includes(each.id)) return; // one that was refused repeats another's id
    for (const child of below.get(each.id) ?? []) walk(child, depth + 1, [...above, each.id]);
  };
  for (const each of below.get("") ?? []) walk(each, 0, []);
  return html`<table aria-label="Candidates"><thead><tr><th>candidate</th><th>became</th><th class="right">selection</th><th class="right">all its tasks</th><th class="right">rollouts</th></tr></thead>
    <tbody>${lines.map(({ each, depth }) => html`<tr>
      <td style=${{ paddingLeft: `${depth * 16}px`, whiteSpace: "nowrap" }}>${depth > 0 && html`<span class="quiet">└ </span>`}<button class="bare mono" aria-pressed=${each === shown} onClick=${() => change({ candidate: each.id })}>${each.id}</button></td>
      <td><${Badge} of=${STATES[each.state]} text=${each.chosen ? "chosen" : each.state} /></td>
      <td class="right">${score(each.selection)} <span class="quiet small">${each.selection_tasks ? `n ${each.selection_tasks}` : ""}</span></td>
      <td class="right"><${Score} score=${each.all} /></td>
      <td class="right">${number(each.rollouts)}${each.failed ? html` <span class="quiet">${each.failed} failed</span>` : ""}</td></tr>`)}</tbody></table>`;
}

function Candidate({ run, data, candidate }) {
  const parent = data.candidates.find((each) => each.id === (candidate.parents[0] ?? ""));
  const base = param("against") === "seed" || !parent ? null : parent;
  return html`
    <div class="row"><h2 class="mono" style=${{ margin: 0 }}>${candidate.id}</h2><${Badge} of=${STATES[candidate.state]} text=${candidate.chosen ? "chosen" : candidate.state} />
      <span class="quiet small">${candidate.origin}${candidate.round ? `, round ${candidate.round}` : ""}</span></div>
    ${candidate.reason && html`<p class="wrap" style=${{ marginTop: "8px" }}>${candidate.reason}</p>`}
    ${parent && html`<div class="row" role="group" aria-label="Compared with" style=${{ margin: "8px 0" }}>
      <button aria-pressed=${base !== null} onClick=${() => change({ against: "" })}>against its parent</button><button aria-pressed=${base === null} onClick=${() => change({ against: "seed" })}>against the agent's own</button></div>`}
    ${data.texts.map((each) => html`<h3 style=${{ marginTop: "12px" }}>${each.mark || each.name} <span class="quiet">${each.roles.filter(Boolean).join(", ")}</span></h3>
      <pre class="said"><${Changes} before=${base ? base.texts[each.name] : each.text} after=${candidate.texts[each.name]} /></pre>`)}
    ${candidate.replies.length > 0 && html`<h3 style=${{ marginTop: "14px" }}>Where it came from</h3>
      ${candidate.replies.map((place) => html`<details><summary>What reflection read and wrote, question ${place + 1}</summary>
        <h4>It read</h4><div class="json" tabindex="0" role="region" aria-label="What reflection read"><${LongText} text=${data.replies[place].asked} mono=${true} /></div>
        <h4>It wrote</h4><div class="json" tabindex="0" role="region" aria-label="What reflection wrote"><${LongText} text=${data.replies[place].text || data.replies[place].error} mono=${true} /></div></details>`)}`}
    <p style=${{ marginTop: "12px" }}><a href=${link(["run", run, "rollouts"], {})}>Rollouts of the run</a></p>`;
}

function Changes({ before, after }) {
  if (before === after) return html`<span class="quiet">unchanged:</span> ${after}`;
  return diffWordsWithSpace(before, after).map((part) => (part.added ? html`<ins>${part.value}</ins>` : part.removed ? html`<del>${part.value}</del>` : part.value));
}
