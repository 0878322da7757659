// Light or dark: as the system has it, unless the reader chose; and the colours of series by role.
import { signal } from "../vendor/parts.js";

const KEY = "lightning-theme";
const SERIES = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];

function stored() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

// '' for the system's.
export const theme = signal(stored());
// Changes whenever colours change, so that what is drawn is drawn again.
export const painted = signal(0);

function apply() {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
  painted.value += 1;
}

export function nextTheme() {
  theme.value = { "": "light", light: "dark", dark: "" }[theme.value];
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // it lasts as long as the page does
  }
  apply();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  painted.value += 1;
});
apply();

// A colour by the name of its variable, as canvases need it.
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The variable of the series at this place.
export const seriesColour = (place) => SERIES[place % SERIES.length];

// The same role has the same colour in every view; what belongs to no role is grey.
export const roleColour = (roles, role) => (role ? seriesColour(Math.max(0, roles.filter(Boolean).indexOf(role))) : "--c6");

const phone = matchMedia("(max-width: 820px)");
// Whether the window is as narrow as a phone's.
export const narrow = signal(phone.matches);
phone.addEventListener("change", () => {
  narrow.value = phone.matches;
});
