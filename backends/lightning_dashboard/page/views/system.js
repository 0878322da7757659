// The machinery: hub, engine, learner, runners, their queues and memory, and the last words of their logs.
import { html, Badge, Empty, Fact, Waiting } from "../parts/ui.js";
import { Messages } from "./run.js";
import { isFile, useView } from "../data.js";
import { change, link, param } from "../address.js";
import { ago, bytes, clock, duration, number, words } from "../format.js";

export function SystemView({ run }) {
  const state = useView("system", { run });
  if (!state.data) return html`<${Waiting} state=${state} what="the machinery" />`;
  const { data } = state;
  return html`
    <h2 class="hidden">Now</h2>
    <div class="cards four">
      <${Queue} data=${data} /><${Hub} data=${data} /><${Engine} data=${data} /><${Learner} data=${data} />
    </div>
    ${data.processes.length > 0 && html`<h2>Processes</h2><div class="card scroll"><${Processes} data=${data} /></div>`}
    <h2>Runners</h2><div class="card scroll"><${Runners} run=${run} data=${data} /></div>
    <h2>Last words</h2><${Logs} data=${data} />
    ${data.set_aside.length > 0 && html`<h2>Set aside</h2><pre class="card log" tabindex="0">${data.set_aside.join("\n")}</pre>`}
    <${Messages} messages=${data.messages} />
    <div class="two"><div><h2>On disk</h2><div class="card scroll"><${Disk} data=${data} /></div></div>
      <div><h2>Versions of the model</h2><div class="card scroll"><${Versions} data=${data} /></div></div></div>
    <h2>Facts and packages</h2><div class="card scroll"><table><tbody>
      ${Object.entries({ ...data.facts, ...data.packages }).map(([name, value]) => html`<tr><th scope="row">${words(name)}</th><td class="wrap mono">${typeof value === "object" ? JSON.stringify(value) : String(value)}</td></tr>`)}
    </tbody></table></div>`;
}

const Part = ({ title, children }) => html`<section class="card" aria-label=${title}><h3 style=${{ marginBottom: "10px" }}>${title}</h3><div class="facts">${children}</div></section>`;

function Queue({ data }) {
  if (!data.hub) {
    const why = data.status !== "running" ? "The run is over: nothing is queued." : isFile ? "The run was under way when this file was made. Queues and processes, which change all the time, are left out." : data.watched ? "The hub does not answer." : "Queues are shown by the dashboard that the training itself started.";
    return html`<section class="card" aria-label="Queue"><h3>Queue</h3><${Empty}>${why}<//></section>`;
  }
  const { round } = data.hub;
  return html`<${Part} title="Queue">
    <${Fact} name="waiting">${number(round.queued)}<//><${Fact} name="under way">${number(round.active)}<//><${Fact} name="done">${number(round.done)} <small>of this round</small><//>
    <${Fact} name="runners">${number(data.hub.runners?.length ?? data.hub.runners)}<//><${Fact} name="clients">${number(data.hub.clients)}<//>
  <//>`;
}

const LOST = ["refused", "garbage", "gaps", "duplicates", "strangers", "malformed", "undecodable", "late", "write_errors", "dropped_events"];

function Hub({ data }) {
  const { hub } = data;
  if (!hub) return html`<${Part} title="Hub"><${Fact} name="status"><${Badge} of=${data.status} /><//><${Fact} name="log">${bytes(data.disk.spans ?? 0)}<//><${Fact} name="store">${bytes(data.disk["hub.sqlite"] ?? 0)}<//><//>`;
  const lost = LOST.filter((name) => hub[name] > 0);
  return html`<${Part} title="Hub">
    <${Fact} name="events">${number(hub.events)}<//><${Fact} name="log">${bytes(hub.bytes)}<//><${Fact} name="process">${hub.pid}<//>
    ${lost.length ? lost.map((name) => html`<${Fact} name=${words(name)}>${number(hub[name])}<//>`) : html`<${Fact} name="refused or dropped">0<//>`}
    ${hub.export && html`<${Fact} name="exported spans">${number(hub.export.exported)} <small>${number(hub.export.waiting)} waiting</small><//>`}
  <//>`;
}

const Engine = ({ data: { last } }) => html`<${Part} title="Engine, in the last step">
  <${Fact} name="sampled">${number(last.tokens_per_second)} <small>tokens/s</small><//>
  <${Fact} name="calls">${number(last.calls)}<//><${Fact} name="tokens">${number(last.tokens_generated)}<//>
  <${Fact} name="version">${number(last.version)}<//><${Fact} name="generating">${duration(last.seconds_generate)}<//><//>`;

const Learner = ({ data: { last } }) => html`<${Part} title="Learner, in the last step">
  <${Fact} name="rows">${number(last.rows)}<//><${Fact} name="updating">${duration(last.seconds_update)}<//>
  <${Fact} name="optimizer steps">${number(last.optimizer_steps)}<//>${last.skipped > 0 && html`<${Fact} name="skipped">${number(last.skipped)}<//>`}
  <${Fact} name="staleness">${number(last.staleness_mean)} <small>at most ${number(last.staleness_max)}</small><//>
  ${last.memory_peak != null && html`<${Fact} name="memory">${bytes(last.memory_peak)}<//>`}<//>`;

const Processes = ({ data }) => html`<table aria-label="Processes"><thead><tr><th>process</th><th class="right">id</th><th class="right">memory</th><th class="right">CPU time</th></tr></thead>
  <tbody>${data.processes.map((each) => html`<tr><td style=${{ paddingLeft: `${each.depth * 18}px` }}>${each.name}</td><td class="right">${each.pid}</td><td class="right">${bytes(each.memory)}</td><td class="right">${duration(each.cpu_seconds)}</td></tr>`)}</tbody></table>`;

function Runners({ run, data }) {
  if (!data.runners.length) return html`<${Empty}>No runner has taken a rollout yet.<//>`;
  return html`<table aria-label="Runners"><thead><tr><th>runner</th><th class="right">rollouts</th><th class="right">under way</th><th class="right">failed</th><th>last heard of</th></tr></thead>
    <tbody>${data.runners.map((each) => html`<tr><td class="mono wrap"><a href=${link(["run", run, "rollouts"], { runner: each.name, attempts: "all" })}>${each.name}</a></td><td class="right">${number(each.rollouts)}</td><td class="right">${number(each.under_way)}</td>
      <td class="right">${each.failed ? html`<a href=${link(["run", run, "rollouts"], { runner: each.name, attempts: "all", status: ["agent_error", "reward_error", "infrastructure_error", "timeout"] })}>${number(each.failed)}</a>` : 0}</td><td>${ago(each.last, data.now)}</td></tr>`)}</tbody></table>`;
}

function Logs({ data }) {
  if (!data.logs.length) return html`<${Empty}>No log was kept.<//>`;
  const chosen = data.logs.find((each) => each.name === param("log")) ?? data.logs[0];
  return html`<div class="row" role="group" aria-label="Logs" style=${{ marginBottom: "8px" }}>
      ${data.logs.map((each) => html`<button aria-pressed=${each === chosen} onClick=${() => change({ log: each.name })}>${each.name} <span class="quiet small">${bytes(each.bytes)}</span></button>`)}
    </div>
    <pre class="card log" tabindex="0" role="log" aria-label=${`The end of ${chosen.name}`}>${chosen.lines.join("\n") || "empty"}</pre>`;
}

const Disk = ({ data }) => html`<table><tbody>${Object.entries(data.disk).map(([name, size]) => html`<tr><td class="mono">${name}</td><td class="right">${bytes(size)}</td></tr>`)}</tbody></table>`;

function Versions({ data }) {
  if (!data.versions.length) return html`<${Empty}>None yet.<//>`;
  return html`<div style=${{ maxHeight: "300px", overflow: "auto" }} tabindex="0" role="region" aria-label="Versions of the model"><table><thead><tr><th>version</th><th>step</th><th>published</th><th>checkpoint</th></tr></thead><tbody>
    ${[...data.versions].reverse().map((each) => html`<tr><td>${each.version}</td><td>${each.step}</td><td>${clock(each.time)}</td><td class="mono">${each.checkpoint}</td></tr>`)}</tbody></table></div>`;
}
