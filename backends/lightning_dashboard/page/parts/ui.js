// Small parts that every view uses.
import { h, htm, useEffect, useState } from "../vendor/parts.js";
import { interval, number, score as threeDecimals, words } from "../format.js";

export const html = htm.bind(h);

const KINDS = {
  ok: "good", finished: "good", better: "good", running: "live", queued: "live", fatal: "bad", failed: "bad", worse: "bad",
  warning: "warn", stopped: "warn", unfinished: "warn", timeout: "warn", cancelled: "warn",
  agent_error: "bad", reward_error: "bad", infrastructure_error: "bad", error: "bad",
};

export const Badge = ({ of, text }) => html`<span class="badge ${KINDS[of] ?? ""}">${text ?? words(of)}</span>`;

export const Fact = ({ name, children, title }) =>
  html`<div title=${title}><div class="name">${name}</div><div class="value">${children}</div></div>`;

// A mean with its interval.
export const Score = ({ score, show = threeDecimals }) => html`<span class="number whole">${interval(score, show)}</span>`;

// What a view shows until it has data, or why it has none.
export function Waiting({ state, what = "this view" }) {
  if (state.error) return html`<div class="error" role="alert">${state.error}</div>`;
  return html`<div class="empty" role="status">Loading ${what}…</div>`;
}

export const Empty = ({ children }) => html`<div class="empty">${children}</div>`;

// A text field that tells what was typed after a moment of quiet.
export function TextField({ label, value, onChange, placeholder, type = "search", width = 180, step }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed === value) return undefined;
    const timer = setTimeout(() => onChange(typed), 250);
    return () => clearTimeout(timer);
  }, [typed]);
  return html`<label class="field">${label}
    <input type=${type} value=${typed} placeholder=${placeholder} step=${step} style=${{ width: `${width}px` }}
      onInput=${(event) => setTyped(event.target.value)} /></label>`;
}

// A choice; `options`: [value, text] pairs.
export const Choice = ({ label, value, options, onChange }) => html`<label class="field">${label}
  <select value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${options.map(([each, text]) => html`<option value=${each} selected=${each === value}>${text}</option>`)}
  </select></label>`;

// Text of others, as it is; a long one is cut until asked for.
export function LongText({ text, most = 6000, mono }) {
  const [whole, setWhole] = useState(false);
  const value = typeof text === "string" ? text : JSON.stringify(text, null, 2) ?? "";
  const cut = !whole && value.length > most;
  return html`<div>
    <pre class=${mono ? "" : "wrap"} style=${mono ? {} : { fontFamily: "inherit", fontSize: "inherit" }}>${cut ? value.slice(0, most) : value}</pre>
    ${cut && html`<button class="small" onClick=${() => setWhole(true)}>Show all ${number(value.length)} characters</button>`}
  </div>`;
}

export const Json = ({ value }) => html`<div class="json" tabindex="0" role="region" aria-label="JSON"><${LongText} text=${layOut(value)} most=${20000} mono=${true} /></div>`;

// JSON in which what fits on a line stands on one.
function layOut(value, indent = "") {
  const short = JSON.stringify(value) ?? "";
  if (value === null || typeof value !== "object" || short.length + indent.length < 88) return short;
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const parts = Array.isArray(value)
    ? value.map((each) => layOut(each, inner))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${layOut(each, inner)}`);
  return `${open}\n${parts.map((each) => inner + each).join(",\n")}\n${indent}${close}`;
}
