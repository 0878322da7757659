// Messages to and from models, as text: nothing in them is ever run or loaded.
import { html, Json, LongText } from "./ui.js";
import { words } from "../format.js";

export function Message({ message, note }) {
  return html`<div class="message ${message.role}">
    <div class="who">${message.role}${note && html` <span>· ${note}</span>`}</div>
    ${message.parts.map((part) => html`<${Part} part=${part} />`)}
    ${!message.parts.length && html`<span class="quiet">nothing</span>`}
  </div>`;
}

function Part({ part }) {
  if (part.type === "text") return html`<${LongText} text=${part.content} />`;
  if (part.type === "reasoning") return html`<div class="thought"><${LongText} text=${part.content} /></div>`;
  if (part.type === "tool_call") return html`<div class="call"><b>${part.name}</b> <${LongText} text=${pretty(part.arguments)} mono=${true} /></div>`;
  if (part.type === "tool_call_response") return html`<${LongText} text=${typeof part.response === "string" ? part.response : JSON.stringify(part.response, null, 2)} mono=${true} />`;
  return html`<div class="quiet small">${words(part.type ?? "a part")}</div><${Json} value=${part} />`;
}

function pretty(text) {
  try {
    return JSON.stringify(typeof text === "string" ? JSON.parse(text) : text, null, 1);
  } catch {
    return String(text);
  }
}
