// Numbers, times and sizes as people read them.

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US").replace("-", "−");
  const size = Math.abs(value);
  if (size >= 999.5) return Math.round(value).toLocaleString("en-US").replace("-", "−");
  if (size < 1e-3) return value.toExponential(1).replace("-", "−").replace("e−", "e−").replace("e-", "e−");
  return Number(value.toPrecision(digits)).toString().replace("-", "−");
}

export function signed(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return (value > 0 ? "+" : "") + number(value, digits);
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${number(value * 100)} %`;
}

// A score with three decimals, as the terminal has it.
export function score(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3).replace("-", "−");
}

export function scoreChange(value) {
  return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + score(value);
}

// "0.970 [0.936, 0.989]"
export function interval(score, show) {
  if (!score || score.mean === null || score.mean === undefined) return "–";
  return score.low === null || score.low === undefined ? show(score.mean) : `${show(score.mean)} [${show(score.low)}, ${show(score.high)}]`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${number(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) {
    count /= 1000;
    at += 1;
  }
  return `${number(count)} ${units[at]}`;
}

export function clock(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleTimeString([], { hour12: false }) : "–";
}

export function ago(seconds, now = Date.now() / 1000) {
  if (!seconds) return "–";
  const passed = Math.max(0, now - seconds);
  if (passed < 60) return `${Math.round(passed)} s ago`;
  if (passed < 3600) return `${Math.round(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.round(passed / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleDateString();
}

export function count(n, one, many = `${one}s`) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

// A status as words.
export function words(name) {
  return String(name).replaceAll("_", " ");
}
