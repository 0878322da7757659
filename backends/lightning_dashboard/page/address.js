// The address: which view is open and how, all of it behind the # so that it can be copied, kept and sent.
import { signal } from "./vendor/parts.js";

const TOKEN = "lightning-token";

function read() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const params = new URLSearchParams(query);
  if (params.has("token")) {
    try {
      localStorage.setItem(TOKEN, params.get("token"));
    } catch {
      memory = params.get("token");
    }
    params.delete("token"); // it opens the server, and is nobody's to copy along
    history.replaceState(null, "", write(path, params));
  }
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), params };
}

let memory = "";

function write(path, params) {
  const query = String(params);
  return `#${path || "/"}${query ? `?${query}` : ""}`;
}

// What opens the server's data.
export function token() {
  try {
    return localStorage.getItem(TOKEN) || memory;
  } catch {
    return memory;
  }
}

export const address = signal(read());

addEventListener("hashchange", () => {
  address.value = read();
});

// The address of a place in the page: link(["run", "solve", "rollouts"], {step: 3}).
export function link(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) query.append(name, each);
    }
  }
  return write("/" + path.map(encodeURIComponent).join("/"), query);
}

// Open a place.
export function go(path, params) {
  location.hash = link(path, params);
}

// One parameter of the place that is open.
export function param(name, otherwise = "") {
  return address.value.params.get(name) ?? otherwise;
}

// All values of a parameter that may be repeated.
export const params = (name) => address.value.params.getAll(name);

// Change parameters of the place that is open; '' leaves one out. The browser's back button skips it.
export function change(values) {
  const params = new URLSearchParams(address.value.params);
  for (const [name, value] of Object.entries(values)) {
    params.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) params.append(name, each);
    }
  }
  history.replaceState(null, "", write("/" + address.value.path.map(encodeURIComponent).join("/"), params));
  address.value = read();
}
