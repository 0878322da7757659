// The tokens of a rollout: the exact ids as text, coloured by one number, with where rows begin and why.
import { useMemo, useState } from "../vendor/parts.js";
import { html, Badge, Choice, Empty, Fact, Waiting } from "../parts/ui.js";
import { useView } from "../data.js";
import { change, link, param } from "../address.js";
import { roleColour } from "../parts/theme.js";
import { count, number, signed } from "../format.js";

const MEASURES = [
  ["advantage", "advantage"], ["logprob", "log-probability"], ["mask", "what is trained"], ["version", "model version"],
  ["gap", "sampler–trainer gap"], ["entropy", "entropy"],
];
const SHOWN_AT_ONCE = 4000;
const STEP_ONLY = { gap: "kl_sampler", entropy: "entropy" };

export function TokensView({ run }) {
  const params = { run, rollout: param("rollout"), attempt: param("attempt") };
  const state = useView(params.rollout ? "tokens" : null, params);
  const [at, setAt] = useState(null);
  if (!params.rollout) return html`<${Empty}>Choose a rollout in <a href=${link(["run", run, "rollouts"])}>Rollouts</a>.<//>`;
  if (!state.data) return html`<${Waiting} state=${state} what="the tokens" />`;
  const { data } = state;
  const measure = param("colour", "advantage");
  const role = param("role");
  const roles = [...new Set(data.rows.map((each) => each.role))];
  const rows = data.rows.filter((each) => !role || each.role === role);
  return html`
    <div class="filters">
      <${Choice} label="coloured by" value=${measure} options=${MEASURES} onChange=${(colour) => change({ colour })} />
      <span class="grow"></span>
      <a class="button" href=${link(["run", run, "rollout"], { rollout: data.id, attempt: data.attempt, role })}>The rollout</a>
    </div>
    ${data.missing && html`<div class="error">${data.missing}</div>`}
    <${Legend} measure=${measure} data=${data} rows=${rows} />
    <${Numbers} row=${at && rows[at.row]} at=${at?.token} />
    ${rows.map((row, place) => html`<${Row} key=${place} run=${run} data=${data} row=${row} place=${place} count=${rows.length} measure=${measure} roles=${roles}
      chosen=${at?.row === place ? at.token : null} choose=${(token) => setAt({ row: place, token })} />`)}
    ${!rows.length && html`<${Empty}>No trained call${role ? ` of ${role}` : ""} was recorded in this attempt.<//>`}`;
}

// What the colours mean, and what is not known for single tokens.
function Legend({ measure, data, rows }) {
  if (measure in STEP_ONLY) {
    const means = Object.entries(data.step_means).map(([role, each]) => `${role || "no role"} ${number(each[STEP_ONLY[measure]])}`);
    return html`<p class="quiet" role="note">It is not kept for single tokens. On average over the tokens of this step: ${means.join(", ") || "not known"}.</p>`;
  }
  const missing = [...new Set(rows.map((each) => each.missing).filter(Boolean))];
  if (measure === "advantage") {
    const by = Object.entries(data.settings.advantage).map(([role, each]) => `${each}${role ? ` for ${role}` : ""}`);
    return html`<p class="quiet" role="note">${missing.length ? `Advantages are not shown: ${missing.join("; ")}.` : html`Computed again from the stored rollouts: ${[...new Set(by)].join(", ")}.
      <span class="token" style=${{ background: shade("--c0", 1) }}>more likely</span> <span class="token" style=${{ background: shade("--c1", 1) }}>less likely</span>`}</p>`;
  }
  return html`<p class="quiet" role="note">${{
    logprob: html`The sampler's own: <span class="token" style=${{ background: shade("--c1", 0.05) }}>sure</span> to <span class="token" style=${{ background: shade("--c1", 1) }}>surprising</span>.`,
    mask: html`<span class="token" style=${{ background: shade("--c2", 0.8) }}>trained</span> <span class="token" style=${{ background: shade("--c4", 0.6) }}>sampled, not trained</span> <span class="token">context</span>`,
    version: html`One colour for each version that sampled.`,
  }[measure]}</p>`;
}

// At most 48 %: with more, the text on it would be too faint in dark colours (4.5 to 1 is what it takes).
const shade = (name, part) => `color-mix(in srgb, var(${name}) ${Math.round(8 + 40 * Math.min(1, part))}%, transparent)`;

// The background of a token, '' for none.
function background(row, at, measure, largest) {
  if (measure === "mask") return row.trained[at] ? shade("--c2", 0.8) : row.mask[at] ? shade("--c4", 0.6) : "";
  if (!row.mask[at]) return "";
  if (measure === "logprob") return row.logprobs[at] === null ? "" : shade("--c1", -row.logprobs[at] / 5);
  if (measure === "version") return row.versions[at] === null ? "" : shade(["--c0", "--c1", "--c2", "--c3", "--c4"][row.versions[at] % 5], 0.7);
  const value = row.advantages?.[at];
  return measure !== "advantage" || !value ? "" : shade(value > 0 ? "--c0" : "--c1", Math.abs(value) / largest);
}

function Row({ run, data, row, place, count: rows, measure, roles, chosen, choose }) {
  const [most, setMost] = useState(SHOWN_AT_ONCE);
  const largest = useMemo(() => Math.max(1e-9, ...(row.advantages ?? []).map((each) => Math.abs(each ?? 0))), [row]);
  const starts = useMemo(() => new Map(row.pieces.map((each) => [each.start, each])), [row]);
  const over = (event) => {
    const token = event.target.closest("[data-at]");
    if (token) choose(Number(token.dataset.at));
  };
  const move = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    choose(Math.min(row.ids.length - 1, Math.max(0, (chosen ?? -1) + by)));
  };
  const shown = Math.min(most, row.ids.length);
  return html`<section class="card" style=${{ marginTop: "12px" }} aria-label=${`Row ${place + 1} of ${row.role || "no role"}`}>
    <div class="row"><h2 class="row" style=${{ margin: 0 }}><i class="dot" style=${{ background: `var(${roleColour(roles, row.role)})` }}></i>${row.role || "no role"}</h2>
      <span class="quiet">row ${place + 1} of ${rows}: ${count(row.length, "token")}, ${number(row.sampled)} sampled in ${count(row.pieces.length, "piece")}, temperature ${number(row.temperature)}</span></div>
    ${row.opening && html`<div class="row small" style=${{ marginTop: "6px" }}>${row.opening.is_fault && html`<${Badge} of="warning" text="cut" />`}<span>It does not continue <a href=${link(["run", run, "rollout"], { rollout: data.id, attempt: data.attempt, span: row.opening.previous })}>an earlier call</a>: ${row.opening.reason}${row.differs_at !== null ? `, from token ${row.differs_at} on` : ""}.</span></div>`}
    <div class="tokens" tabindex="0" role="group" aria-label="Tokens; arrow keys move through them" onMouseOver=${over} onClick=${over} onKeyDown=${move}>
      ${row.ids.slice(0, shown).map((id, at) => {
        const piece = starts.get(at);
        return html`${piece && html`<a class="boundary" href=${link(["run", run, "rollout"], { rollout: data.id, attempt: data.attempt, span: piece.call })} title=${`sampled by call ${piece.call}`} aria-label="a call's sampled tokens begin">▸</a>`}<span data-at=${at}
          class=${`token ${row.mask[at] ? "sampled" : ""} ${at === chosen ? "chosen" : ""} ${at === row.differs_at ? "differs" : ""}`} style=${{ background: background(row, at, measure, largest) }}>${visible(row.texts?.[at], id)}</span>`;
      })}
    </div>
    ${shown < row.ids.length && html`<button onClick=${() => setMost(most + SHOWN_AT_ONCE)}>Show ${number(Math.min(SHOWN_AT_ONCE, row.ids.length - shown))} more</button>`}
    ${row.ids.length < row.length && html`<p class="quiet small">The first ${number(row.ids.length)} of ${number(row.length)} tokens.</p>`}
  </section>`;
}

// A token's text with what cannot be seen made visible; its id where there is no text.
function visible(text, id) {
  if (text === undefined || text === null) return `${id} `;
  if (text === "") return "·";
  return text.replaceAll("\n", "↵\n");
}

// The numbers of the token that the pointer or the keyboard is at.
function Numbers({ row, at }) {
  const known = row && at !== null && at !== undefined && at < row.ids.length;
  const piece = known && row.pieces.find((each) => at >= each.start && at < each.end);
  const logprob = known ? row.logprobs[at] : null;
  return html`<div class="card numbers" role="status" aria-label="The token's numbers"><div class="facts">
    ${known
      ? html`<${Fact} name="token"><code>${JSON.stringify(row.texts?.[at] ?? "")}</code> <small>id ${row.ids[at]}, place ${at}</small><//>
        ${row.mask[at]
          ? html`<${Fact} name="advantage">${row.advantages ? signed(row.advantages[at]) : "–"}<//><${Fact} name="log-prob">${signed(logprob)} <small>${logprob === null ? "" : `p ${number(Math.exp(logprob))}`}</small><//>
            <${Fact} name="version">${number(row.versions[at])}<//><${Fact} name="trained">${row.trained[at] ? "yes" : "no"}<//>
            ${piece?.finish && html`<${Fact} name="its call ended by">${piece.finish}<//>`}${piece?.constraint && html`<${Fact} name="limited to">${piece.constraint.slice(0, 80)}<//>`}`
          : html`<${Fact} name="context">not sampled<//>`}`
      : html`<span class="quiet">Point at a token, or move with the arrow keys, to read its numbers.</span>`}
  </div></div>`;
}
