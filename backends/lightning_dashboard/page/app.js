// The page: its frame, and the view that the address names. A view is one module with a component and one answer of the
// server; to add one, write it and name it here.
import { render, useEffect } from "./vendor/parts.js";
import { address, change, go, link, param } from "./address.js";
import { fileNote, isFile, pulse, runsInFile, startPulse, trouble, useView, watched } from "./data.js";
import { nextTheme, theme } from "./parts/theme.js";
import { Badge, html } from "./parts/ui.js";
import { CompareView } from "./views/compare.js";
import { RunsView } from "./views/runs.js";
import { RunView } from "./views/run.js";
import { RolloutsView } from "./views/rollouts.js";
import { RolloutView } from "./views/rollout.js";
import { PromptsView } from "./views/prompts.js";
import { PairsView } from "./views/pairs.js";
import { TokensView } from "./views/tokens.js";
import { SystemView } from "./views/system.js";

// Views of one run, in the order of the tabs; `of`: what the address has to name for them; `searched`: only of a run that
// looks for prompts.
const VIEWS = [
  { name: "run", title: "Run", show: RunView },
  { name: "rollouts", title: "Rollouts", show: RolloutsView },
  { name: "rollout", title: "Rollout", show: RolloutView, of: "rollout" },
  { name: "tokens", title: "Tokens", show: TokensView, of: "rollout" },
  { name: "pairs", title: "Pairs", show: PairsView, of: "rollout" },
  { name: "prompts", title: "Prompts", show: PromptsView, searched: true },
  { name: "system", title: "System", show: SystemView },
];

const ICON = document.querySelector("link[rel=icon]").getAttribute("href");

function App() {
  const [first, name, view = "run"] = address.value.path;
  const run = first === "run" ? name : "";
  useEffect(() => {
    watched.value = run ? [run] : [];
    document.title = run ? `${run} – Lightning` : "Lightning";
  }, [run]);
  const found = VIEWS.find((each) => each.name === view) ?? VIEWS[0];
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <div class="bar">
        <a class="brand" href=${link([])}><img src=${ICON} alt="" /><span>Lightning</span></a>
        ${run ? html`<${RunPicker} run=${run} view=${found.name} />` : html`<h1 class="name grow">${first === "compare" ? "Compare" : "Runs"}</h1>`}
        ${run && html`<${RolePicker} run=${run} />`}
        ${(!isFile || runsInFile.length > 1) && first !== "compare" && html`<a class="button" href=${link(["compare"], { run })}>Compare</a>`}
        <button onClick=${nextTheme} aria-label=${`Colours: ${theme.value || "as the system"}; change`}>${{ "": "◐", light: "☀", dark: "☾" }[theme.value]}</button>
      </div>
      ${run && html`<${Tabs} run=${run} open=${found} />`}
      ${trouble.value && html`<div class="notice" role="alert">${trouble.value}</div>`}
    </header>
    <main id="main" tabindex="-1">
      ${isFile && html`<p class="quiet small" role="note">${fileNote(run)}</p>`}
      ${run ? html`<${found.show} key=${`${run} ${found.name}`} run=${run} />` : first === "compare" ? html`<${CompareView} />` : html`<${RunsView} />`}
    </main>`;
}

function Tabs({ run, open }) {
  const { data } = useView("run", { run });
  const shown = VIEWS.filter((each) => each === open || ((!each.of || param(each.of)) && (!each.searched || data?.search)));
  return html`<nav class="views" aria-label="Views of the run">
    ${shown.map((each) => html`<a href=${tab(run, each)} aria-current=${each === open ? "page" : undefined}>${each.title}</a>`)}
  </nav>`;
}

// A tab keeps the role, and a view of one rollout what it is of.
function tab(run, view) {
  const kept = { role: param("role") };
  if (view.of) kept[view.of] = param(view.of);
  return link(["run", run, view.name], kept);
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function RunPicker({ run, view }) {
  const { data } = useView("runs", {});
  const names = data?.runs.map((each) => each.name) ?? [run];
  return html`<h1 class="grow name row">
    ${names.length > 1
      ? html`<select aria-label="Run" onChange=${(event) => go(["run", event.target.value, ["rollout", "tokens", "pairs"].includes(view) ? "rollouts" : view])}>
          ${names.map((each) => html`<option value=${each} selected=${each === run}>${each}</option>`)}
        </select>`
      : html`<span>${run}</span>`}
    ${pulse.value.running && html`<${Badge} of="running" text="live" />`}
  </h1>`;
}

// The role that every view shows; all of them by default.
function RolePicker({ run }) {
  const { data } = useView("run", { run });
  const roles = (data?.roles ?? []).filter(Boolean);
  const chosen = param("role");
  if (roles.length < 2 && !chosen) return null;
  return html`<select aria-label="Role" onChange=${(event) => change({ role: event.target.value })}>
    <option value="" selected=${!chosen}>all roles</option>
    ${[...new Set([...roles, ...(chosen ? [chosen] : [])])].map((each) => html`<option value=${each} selected=${each === chosen}>${each}</option>`)}
  </select>`;
}

if (runsInFile.length === 1 && !address.value.path.length) go(["run", runsInFile[0]]);
startPulse();
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
