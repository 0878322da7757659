// Two rollouts of one group side by side: what they said differently, what each earned and why, and its credit.
import { diffWordsWithSpace } from "../vendor/parts.js";
import { html, Badge, Empty, Fact, Waiting } from "../parts/ui.js";
import { useView } from "../data.js";
import { change, link, param } from "../address.js";
import { roleColour } from "../parts/theme.js";
import { duration, number, signed, words } from "../format.js";

const MOST_COMPARED = 20000;

export function PairsView({ run }) {
  const chosen = param("rollout");
  const left = useView(chosen ? "rollout" : null, { run, rollout: chosen });
  const mates = (left.data?.group ?? []).filter((each) => each.id !== chosen);
  const other = param("other") || mostDifferent(left.data, mates);
  const right = useView(other ? "rollout" : null, { run, rollout: other });
  const credit = [useView(chosen ? "tokens" : null, { run, rollout: chosen }), useView(other ? "tokens" : null, { run, rollout: other })];
  if (!chosen) return html`<${Empty}>Choose a rollout in <a href=${link(["run", run, "rollouts"])}>Rollouts</a>.<//>`;
  if (!left.data) return html`<${Waiting} state=${left} what="the rollout" />`;
  if (!mates.length) return html`<${Empty}>It is the only rollout of its group, so there is none to compare it with.<//>`;
  if (!right.data) return html`<${Waiting} state=${right} what="the other rollout" />`;
  const both = [left.data, right.data];
  return html`
    <div class="filters"><label class="field">compared with
      <select value=${other} onChange=${(event) => change({ other: event.target.value })}>
        ${mates.map((each) => html`<option value=${each.id} selected=${each.id === other}>reward ${number(each.reward)}, ${words(each.status)}, ${each.id.slice(0, 8)}</option>`)}
      </select></label>
      <button onClick=${() => change({ rollout: other, other: chosen })}>Swap</button></div>
    <div class="two">${both.map((data, side) => html`<${Side} key=${side} run=${run} data=${data} title=${side ? "The other" : "This one"} />`)}</div>
    <h2>What they said</h2>
    <${Turns} both=${both} credit=${credit.map((each) => each.data?.credit ?? {})} role=${param("role")} />
    <${Missing} credit=${credit} />`;
}

// The one of its group whose reward lies farthest from its own.
function mostDifferent(data, mates) {
  if (!data || !mates.length) return "";
  const own = data.group.find((each) => each.id === data.id)?.reward ?? 0;
  return [...mates].sort((a, b) => Math.abs((b.reward ?? own) - own) - Math.abs((a.reward ?? own) - own))[0].id;
}

function Side({ run, data, title }) {
  return html`<section class="card" aria-label=${title}>
    <div class="row"><h2 style=${{ margin: 0 }}>${title}</h2><${Badge} of=${data.status} /><a class="grow mono small wrap" href=${link(["run", run, "rollout"], { rollout: data.id })}>${data.id}</a></div>
    <div class="facts" style=${{ marginTop: "10px" }}>
      <${Fact} name="reward">${number(data.place?.reward)}<//>
      ${Object.entries(data.roles).map(([role, value]) => html`<${Fact} name=${role}>${number(value)}<//>`)}
      <${Fact} name="took">${duration(data.place?.seconds)}<//>
      <${Fact} name="calls">${data.turns.length}<//>
    </div>
    ${data.rewards.filter((each) => each.counts).map((each) => html`<p class="small wrap" style=${{ margin: "6px 0 0" }}><b>${each.name}${each.role ? ` of ${each.role}` : ""} ${number(each.value)}</b> ${each.why}</p>`)}
    ${data.error && html`<div class="error small">${data.error.slice(0, 400)}</div>`}
    <p class="wrap" style=${{ margin: "10px 0 0" }}><span class="quiet">answer</span> <code>${(data.answer || "none").slice(0, 600)}</code></p>
  </section>`;
}

// The calls of each role, the first beside the first; what only one of them said is marked.
function Turns({ both, credit, role }) {
  const roles = [...new Set(both.flatMap((data) => data.turns.map((turn) => turn.role)))].filter((each) => !role || each === role);
  const pairs = roles.flatMap((each) => {
    const [a, b] = both.map((data) => data.turns.filter((turn) => turn.role === each));
    return Array.from({ length: Math.max(a.length, b.length) }, (_, at) => ({ role: each, at, turns: [a[at], b[at]] }));
  });
  if (!pairs.length) return html`<${Empty}>No call was recorded in either.<//>`;
  const first = pairs.find(({ turns }) => said(turns[0]) !== said(turns[1]));
  return pairs.map((pair) => html`<section class="card" style=${{ marginTop: "10px" }} key=${`${pair.role} ${pair.at}`} aria-label=${`Call ${pair.at + 1} of ${pair.role || "no role"}`}>
    <div class="row small"><i class="dot" style=${{ background: `var(${roleColour(roles, pair.role)})` }}></i><b>${pair.role || "no role"}</b><span class="quiet">call ${pair.at + 1}</span>
      ${pair === first && html`<${Badge} of="warning" text="the first difference" />`}${said(pair.turns[0]) === said(pair.turns[1]) && html`<span class="quiet">the same</span>`}</div>
    <div class="two" style=${{ marginTop: "8px" }}>${pair.turns.map((turn, side) => html`<div key=${side}>
      ${turn
        ? html`<pre class="said"><${Said} turn=${turn} other=${pair.turns[1 - side]} side=${side} /></pre>
          <div class="quiet small">advantage <b class="number">${signed(credit[side][turn.call])}</b></div>`
        : html`<span class="quiet">no such call</span>`}</div>`)}</div>
  </section>`);
}

// What a model replied, as one text.
function said(turn) {
  if (!turn) return null;
  return turn.replies.map((reply) => reply.parts.map((part) => (part.type === "tool_call" ? `${part.name}(${part.arguments})` : part.content ?? JSON.stringify(part))).join("\n")).join("\n\n") || turn.error;
}

function Said({ turn, other, side }) {
  const [own, theirs] = [said(turn) ?? "", said(other) ?? ""];
  if (!other || own.length + theirs.length > MOST_COMPARED) return own;
  const parts = side ? diffWordsWithSpace(theirs, own) : diffWordsWithSpace(own, theirs);
  return parts.filter((part) => !(side ? part.removed : part.added)).map((part) => (part.added || part.removed ? html`<mark>${part.value}</mark>` : part.value));
}

function Missing({ credit }) {
  const why = [...new Set(credit.flatMap((each) => each.data?.rows.map((row) => row.missing) ?? []).filter(Boolean))];
  return why.length ? html`<p class="quiet small">Advantages are not shown: ${why.join("; ")}.</p>` : null;
}
