// The data: asked from the server, or read from the page itself where it was exported as one file. Nothing else fetches.
import { effect, signal, useEffect, useState } from "./vendor/parts.js";
import { token } from "./address.js";
import { answerFrom, describeFile } from "./file.js";

const LIVE_MS = 2000;
const IDLE_MS = 15000;
const inline = document.getElementById("data");
const kept = inline ? JSON.parse(inline.textContent) : null;

// Whether the page is a file with its data inside.
export const isFile = kept !== null;
// Names of the runs in the file.
export const runsInFile = kept ? Object.keys(kept.of) : [];
// What the file is, and what of a run it does not have.
export const fileNote = (run) => describeFile(kept, run);
// Whether the server answers: "", or why it does not.
export const trouble = signal("");
// Changes whenever a run that is shown has something new; whether one is under way.
export const pulse = signal({ version: "", running: false });
// Names of the runs that are shown.
export const watched = signal([]);

// What a view shows. Throws an Error with the server's words.
export async function fetchView(view, params = {}, abort) {
  if (kept) return answerFrom(kept, view, params);
  let reply;
  try {
    reply = await fetch(`api/${view}?${encode(params)}`, { headers: { Authorization: `Bearer ${token()}` }, signal: abort });
  } catch (error) {
    if (error.name !== "AbortError") trouble.value = "The dashboard has ended. Everything is still in the run's folder: lightning-sdk dashboard RUN opens it again.";
    throw error;
  }
  const values = reply.ok ? await reply.json() : await reply.json().catch(() => ({ error: `HTTP ${reply.status}` }));
  trouble.value = reply.status === 401 ? values.error : "";
  if (!reply.ok) throw new Error(values.error);
  return values;
}

function encode(params) {
  const query = new URLSearchParams();
  for (const name of Object.keys(params).sort()) {
    for (const each of [params[name]].flat()) {
      if (each !== "" && each !== null && each !== undefined) query.append(name, each);
    }
  }
  return String(query);
}

// {data, error}: of a view, asked again whenever there is something new. Old data stays until new data is there.
export function useView(view, params, { live = true } = {}) {
  const [state, setState] = useState({ data: null, error: "", key: "" });
  const key = view === null ? "" : `${view}?${encode(params)}`;
  const version = live ? pulse.value.version : "";
  useEffect(() => {
    if (!key) return undefined;
    const abort = new AbortController();
    let again;
    const load = () => fetchView(view, params, abort.signal).then(
      (data) => {
        setState({ data, error: "", key });
        if (data.incomplete) again = setTimeout(load, 700); // the server computes on
      },
      (error) => {
        if (error.name !== "AbortError") setState((before) => ({ data: before.key === key ? before.data : null, error: error.message, key }));
      },
    );
    load();
    return () => {
      abort.abort();
      clearTimeout(again);
    };
  }, [key, version]);
  return state.key === key ? state : { data: null, error: "", key };
}

async function beat() {
  try {
    const found = await fetchView("pulse", { run: watched.value });
    if (found.version !== pulse.value.version || found.running !== pulse.value.running) pulse.value = found;
  } catch {
    // fetchView has told of it
  }
}

// Ask for the pulse as long as the page is looked at.
export function startPulse() {
  if (isFile) return;
  let timer;
  const again = async () => {
    clearTimeout(timer);
    if (!document.hidden) await beat();
    timer = setTimeout(again, pulse.value.running ? LIVE_MS : IDLE_MS);
  };
  effect(() => {
    watched.value; // another run is shown: ask at once
    again();
  });
  addEventListener("visibilitychange", () => !document.hidden && again());
}
