// One rollout: what happened when, what was said, what it earned and why, and every try at it.
import { useState } from "../vendor/parts.js";
import { html, Badge, Empty, Fact, Json, LongText, Waiting } from "../parts/ui.js";
import { Message } from "../parts/message.js";
import { useView } from "../data.js";
import { change, link, param } from "../address.js";
import { roleColour } from "../parts/theme.js";
import { clock, count, duration, number, signed, words } from "../format.js";

const KINDS = { rollout: "--c6", agent: "--c5", call: "--c0", tool: "--c4", foreign: "--c3", reward: "--c2", notice: "--bad", span: "--c6" };

export function RolloutView({ run }) {
  const params = { run, rollout: param("rollout"), attempt: param("attempt") };
  const state = useView("rollout", params);
  if (!params.rollout) return html`<${Empty}>Choose one in <a href=${link(["run", run, "rollouts"])}>Rollouts</a>.<//>`;
  if (!state.data) return html`<${Waiting} state=${state} what="the rollout" />`;
  const { data } = state;
  const role = param("role");
  const roles = [...new Set([...Object.keys(data.roles), ...data.spans.map((each) => each.role).filter(Boolean)])];
  const shown = data.spans.find((each) => each.id === param("span"));
  return html`
    <${Head} run=${run} data=${data} />
    <div class="two" style=${{ marginTop: "12px" }}>
      <section class="card" aria-label="What happened">
        <h2>What happened</h2>
        ${data.missing && html`<div class="error">${data.missing}</div>`}
        <${Tree} data=${data} role=${role} roles=${roles} shown=${shown} />
      </section>
      <section class="card" aria-label="Details">
        ${shown ? html`<${Details} key=${shown.id} span=${shown} params=${params} />` : html`<${Asked} data=${data} />`}
      </section>
    </div>
    <section class="card" style=${{ marginTop: "12px" }} aria-label="Conversation">
      <h2>Conversation</h2>
      <${Conversation} data=${data} role=${role} roles=${roles} />
    </section>`;
}

function Head({ run, data }) {
  const { place } = data;
  const when = place ? (place.step !== null ? `step ${place.step}` : place.evaluation || words(place.mode)) : "";
  const at = data.group.findIndex((each) => each.id === data.id);
  const to = (mate) => link(["run", run, "rollout"], { rollout: mate.id, role: param("role") });
  return html`<section class="card" aria-label="Result">
    <div class="row">
      <${Badge} of=${data.status} />
      <span class="tag">${when}</span>
      ${place && html`<a class="small" href=${link(["run", run, "rollouts"], { group: place.group, mode: place.mode })}>group ${place.group}</a>`}
      <span class="grow mono quiet small wrap">${data.id}</span>
      <a class="button" href=${link(["run", run, "tokens"], { rollout: data.id, attempt: data.attempt, role: param("role") })}>Its tokens</a>
      ${data.group.length > 1 && html`<a class="button" href=${link(["run", run, "pairs"], { rollout: data.id, role: param("role") })}>Beside another</a>`}
      ${data.group.length > 1 && html`<span class="row" role="group" aria-label="Rollouts of the group">
        ${at > 0 && html`<a class="button" href=${to(data.group[at - 1])}>← before</a>`}
        <span class="quiet small">${at + 1} of ${data.group.length}</span>
        ${at < data.group.length - 1 && html`<a class="button" href=${to(data.group[at + 1])}>next →</a>`}
      </span>`}
    </div>
    ${data.error && html`<div class="error" style=${{ marginTop: "10px" }}><${LongText} text=${data.error} mono=${true} /></div>`}
    <div class="facts" style=${{ marginTop: "12px" }}>
      <${Fact} name="reward">${number(place?.reward)}<//>
      ${Object.entries(data.roles).map(([role, value]) => html`<${Fact} name=${role}>${number(value)}<//>`)}
      <${Fact} name="took">${duration(place?.seconds)}<//>
      <${Fact} name="began">${clock(data.started)}<//>
      <${Fact} name="calls">${data.spans.filter((each) => each.kind === "call").length}<//>
    </div>
    <${RewardTable} data=${data} />
    ${data.attempts.length > 1 && html`<h3 style=${{ marginTop: "14px" }}>${count(data.attempts.length, "attempt")}</h3>
      <div class="scroll"><table><thead><tr><th>try</th><th>status</th><th>began</th><th>took</th><th>runner</th><th>why</th></tr></thead><tbody>
      ${data.attempts.map((each) => html`<tr><td><a href=${link(["run", run, "rollout"], { rollout: data.id, attempt: each.attempt })} aria-current=${each.attempt === data.attempt ? "true" : undefined}>${each.attempt}${each.attempt === data.attempt ? " (shown)" : ""}</a></td>
        <td><${Badge} of=${each.status} /></td><td>${clock(each.started)}</td><td>${duration(each.seconds)}</td><td class="mono">${each.runner}</td><td class="wrap">${each.error}</td></tr>`)}
      </tbody></table></div>`}
  </section>`;
}

// Each reward as it was given, with its reason.
function RewardTable({ data }) {
  if (!data.rewards.length) return html`<p class="quiet small" style=${{ marginTop: "10px" }}>No reward was given.</p>`;
  return html`<div class="scroll" style=${{ marginTop: "10px" }}><table aria-label="Rewards">
    <thead><tr><th>reward</th><th>of</th><th class="right">value</th><th class="right">weight</th><th>given</th><th>why</th></tr></thead>
    <tbody>${data.rewards.map((each) => html`<tr class=${each.counts ? "" : "quiet"}>
      <td>${each.name}</td><td>${each.role || "the whole rollout"}</td>
      <td class="right">${each.refused ? "refused" : number(each.value)}</td>
      <td class="right">${number(data.weights[each.name] ?? 1)}</td>
      <td>${each.rescoring ? `by re-scoring ${each.rescoring}` : each.by_function ? "at the end" : each.at !== null ? `after ${duration(each.at / 1000)}` : ""}${each.counts ? "" : each.refused ? "" : ", replaced since"}</td>
      <td class="wrap">${each.refused || each.why || html`<span class="quiet">–</span>`}</td></tr>`)}</tbody></table></div>`;
}

const Asked = ({ data }) => html`
  <h2>Task</h2><${Json} value=${data.task} />
  <h2>Answer</h2>${data.answer ? html`<${LongText} text=${data.answer} mono=${true} />` : html`<span class="quiet">none</span>`}
  <p class="quiet small" style=${{ marginTop: "14px" }}>Choose a line of what happened to see its request and reply.</p>`;

// Spans below what encloses them, each as a bar on the time axis.
function Tree({ data, role, roles, shown }) {
  const total = Math.max(1e-6, ...data.spans.map((each) => each.end));
  const below = new Map();
  for (const each of data.spans) below.set(each.parent, [...(below.get(each.parent) ?? []), each]);
  const lines = [];
  const walk = (span, depth, seen) => {
    if (seen.has(span.id)) return; // spans of strangers may enclose each other
    lines.push({ span, depth });
    for (const each of below.get(span.id) ?? []) walk(each, depth + 1, new Set([...seen, span.id]));
  };
  walk(data.spans[0], 0, new Set());
  const kinds = [...new Set(lines.map((each) => each.span.kind))];
  const move = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = [...event.currentTarget.querySelectorAll("button.span")];
    all[Math.min(all.length - 1, Math.max(0, all.indexOf(document.activeElement) + by))]?.focus();
  };
  return html`<div class="tree">
    <div class="row quiet small" style=${{ marginBottom: "6px" }}>${kinds.map((kind) => html`<span class="row" style=${{ gap: "4px" }}><i class="dot" style=${{ background: `var(${KINDS[kind]})` }}></i>${kind}</span>`)}<span class="grow"></span><span>${duration(total / 1000)}</span></div>
    <div role="tree" aria-label="Spans" onKeyDown=${move}>
      ${lines.map(({ span, depth }) => html`<button class="span" key=${span.id} role="treeitem" aria-level=${depth + 1} aria-selected=${span === shown}
        style=${{ opacity: role && span.role && span.role !== role ? 0.45 : 1 }}
        onClick=${() => change({ span: span === shown ? "" : span.id })}>
        <span class="label" style=${{ paddingLeft: `${depth * 14}px` }}>
          <i class="dot" style=${{ background: `var(${span.role && span.kind !== "call" ? roleColour(roles, span.role) : KINDS[span.kind]})` }}></i>
          <span title=${span.name}>${span.role ? html`<b>${span.role}</b> ` : ""}${span.name}${span.status !== "ok" && span.kind !== "rollout" ? html` <b style=${{ color: "var(--bad)" }}>${words(span.status)}</b>` : ""}</span>
        </span>
        <span class="axis">
          <i style=${{ left: `${(100 * Math.max(0, span.start)) / total}%`, width: `${(100 * Math.max(0, span.end - span.start)) / total}%`, background: `var(${span.status === "error" ? "--bad" : KINDS[span.kind]})` }}></i>
          ${span.kind === "rollout" && data.rewards.filter((each) => each.counts && each.at !== null).map((each) => html`<b title=${`${each.name} ${each.value}`} style=${{ left: `${Math.min(100, (100 * each.at) / total)}%` }}></b>`)}
        </span>
        <span class="number quiet small" style=${{ textAlign: "right" }}>${duration((span.end - span.start) / 1000)}</span>
      </button>`)}
    </div></div>`;
}

function Details({ span, params }) {
  const facts = [
    ["kind", span.kind], ["role", span.role], ["status", span.status], ["began after", duration(span.start / 1000)], ["took", duration((span.end - span.start) / 1000)],
    ["trained", span.kind === "call" ? (span.trainable ? "yes" : "no") : null], ["model version", [...new Set(span.versions ?? [])].join(" to ")],
    ["tokens", span.kind === "call" ? `${number(span.input_tokens)} in, ${number(span.output_tokens)} out` : null],
    ["mean log-prob", span.logprob != null ? signed(span.logprob) : null], ["finished by", span.finish?.join(", ")],
    ["HTTP status", span.http_status], ["path", span.path], ["seam", span.framework], ["candidate", span.candidate],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`
    <div class="row" style=${{ marginBottom: "8px" }}><h2 class="grow wrap" style=${{ margin: 0 }}>${span.name}</h2><button onClick=${() => change({ span: "" })}>Close</button></div>
    <dl class="facts small">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd class="wrap">${value}</dd></div>`)}</dl>
    ${span.error && html`<div class="error"><${LongText} text=${span.error} mono=${true} /></div>`}
    ${span.problem && html`<div class="error">${span.problem}</div>`}
    ${span.kind === "call" && html`<${Call} params=${{ ...params, call: span.id }} />`}
    ${span.attributes && Object.keys(span.attributes).length > 0 && html`<h3 style=${{ marginTop: "12px" }}>Attributes</h3><${Json} value=${span.attributes} />`}`;
}

// The request and the reply of one call.
function Call({ params }) {
  const [raw, setRaw] = useState(false);
  const state = useView("call", params, { live: false });
  if (!state.data) return html`<${Waiting} state=${state} what="the call" />`;
  const { data } = state;
  return html`
    <div class="row" style=${{ margin: "12px 0 4px" }} role="group" aria-label="Shown as">
      <button aria-pressed=${!raw} onClick=${() => setRaw(false)}>Messages</button><button aria-pressed=${raw} onClick=${() => setRaw(true)}>JSON</button>
    </div>
    ${raw
      ? html`<h3>Request</h3><${Json} value=${data.request} /><h3>Reply</h3>${data.replies.map((each) => html`<${Json} value=${each.raw} />`)}`
      : html`<h3>Request</h3>${data.messages.map((each) => html`<${Message} message=${each} />`)}
        <h3>Reply</h3>${data.replies.map((each) => html`<${Message} message=${each.message} note=${`${each.finish || "not finished"}${each.tokens ? `, ${count(each.tokens, "token")}` : ""}`} />`)}
        ${!data.replies.length && html`<span class="quiet">none</span>`}`}
    ${data.unread && html`<h3>What came, unread</h3><${LongText} text=${data.unread} mono=${true} />`}`;
}

// For each call what its role had not been sent before, and the reply.
function Conversation({ data, role, roles }) {
  const turns = data.turns.filter((each) => !role || each.role === role);
  if (!turns.length) return html`<${Empty}>No call${role ? ` of ${role}` : ""} was recorded.<//>`;
  return turns.map((turn, at) => html`<div class="turn" key=${turn.call}>
    <div class="row small"><i class="dot" style=${{ background: `var(${roleColour(roles, turn.role)})` }}></i><b>${turn.role || "no role"}</b>
      <span class="quiet">call ${at + 1}${turn.shared ? `, after ${count(turn.shared, "message")} as before` : ""}</span>
      <a href="#" onClick=${(event) => { event.preventDefault(); change({ span: turn.call }); }}>request and reply</a></div>
    ${turn.messages.map((each) => html`<${Message} message=${each} />`)}
    ${turn.replies.map((each) => html`<${Message} message=${each} note=${turn.replies.length > 1 ? "one of several choices" : ""} />`)}
    ${turn.error && html`<div class="error">${turn.error}</div>`}
  </div>`);
}
