// A chart of curves over steps: with bands for intervals, marks for findings, and its numbers as a table.
import { uPlot, useEffect, useRef, useState } from "../vendor/parts.js";
import { html } from "./ui.js";
import { colour, painted } from "./theme.js";
import { number } from "../format.js";

const SYNC = uPlot.sync("steps");
const HEIGHT = 170;

// series: [{name, values, colour: '--c0', low, high, points: true, dash, whiskers, own: what the legend says}]; marks: [{x, bad, text}].
export function Chart({ title, x, series, marks = [], height = HEIGHT, show = number, filled = false, range, note, xName = "step" }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const [table, setTable] = useState(false);
  const shape = JSON.stringify([series.map((each) => [each.name, each.colour, !!each.low, !!each.points, each.dash]), filled, range, height]);
  const data = columns(x, series);
  useEffect(() => {
    if (!place.current || table) return undefined;
    const box = place.current;
    const made = new uPlot(options(box.clientWidth, height, series, show, filled, range, () => plot.current?.marks ?? [], setAt), data, box);
    plot.current = { made, marks };
    const resized = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height }));
    resized.observe(box);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, painted.value, table]);
  useEffect(() => {
    if (!plot.current) return;
    plot.current.marks = marks;
    plot.current.made.setData(data);
  }, [JSON.stringify(data), JSON.stringify(marks)]);
  const last = x.length - 1;
  const shown = at ?? last;
  const move = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !plot.current) return;
    event.preventDefault();
    const next = Math.min(last, Math.max(0, shown + by));
    plot.current.made.setCursor({ left: plot.current.made.valToPos(x[next], "x"), top: 10 });
    setAt(next);
  };
  const told = series.map((each) => `${each.name} ${show((each.own ?? each.values)[last])}`).join(", ");
  return html`<section class="card chart" aria-label=${title}>
    <div class="head">
      <h3>${title}</h3>
      <div class="legend">
        ${x.length > 0 && html`<span>${xName} <b>${x[shown]}</b></span>`}
        ${series.map((each) => html`<span key=${each.name}>
          <i class="dot" style=${{ background: `var(${each.colour})` }}></i>${each.name}
          <b>${show((each.own ?? each.values)[shown])}</b>${each.low?.[shown] != null && html`<small>${show(each.low[shown])} to ${show(each.high[shown])}</small>`}
        </span>`)}
      </div>
      <span class="tools"><button class="bare" aria-pressed=${table} onClick=${() => setTable(!table)}
        aria-label=${`${table ? "Curve" : "Numbers"} of ${title}`}>${table ? "curve" : "numbers"}</button></span>
    </div>
    ${table
      ? html`<${Numbers} x=${x} series=${series} show=${show} height=${height} xName=${xName} title=${title} />`
      : html`<div class="plot" ref=${place} role="img" tabindex="0" onKeyDown=${move} style=${{ minHeight: `${height}px` }}
          aria-label=${`${title} by ${xName}; at the last one, ${x[last] ?? "none"}: ${told}. Arrow keys move through it.`}></div>`}
    ${note && html`<div class="quiet small">${note}</div>`}
  </section>`;
}

function Numbers({ x, series, show, height, xName, title }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`Numbers of ${title}`} style=${{ maxHeight: `${height}px`, overflow: "auto" }}>
    <table><thead><tr><th>${xName}</th>${series.map((each) => html`<th class="right">${each.name}</th>`)}</tr></thead>
    <tbody>${x.map((step, row) => html`<tr><td>${step}</td>${series.map((each) => html`<td class="right">${show((each.own ?? each.values)[row])}
      ${each.low?.[row] != null && html`<span class="quiet"> [${show(each.low[row])}, ${show(each.high[row])}]</span>`}</td>`)}</tr>`)}</tbody></table>
  </div>`;
}

function columns(x, series) {
  return [x, ...series.flatMap((each) => (each.low ? [each.values, each.low, each.high] : [each.values]))];
}

function options(width, height, series, show, filled, range, marks, moved) {
  const lines = [{}];
  const bands = [];
  for (const each of series) {
    const stroke = colour(each.colour);
    lines.push({
      stroke, width: each.line === false ? 0 : 1.75, dash: each.dash, spanGaps: true,
      fill: filled ? stroke : undefined,
      points: { show: each.points ?? undefined, size: 6, fill: stroke },
    });
    if (each.low) {
      const bound = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      lines.push({ ...bound }, { ...bound });
      if (!each.whiskers) bands.push({ series: [lines.length - 1, lines.length - 2], fill: `${stroke}26` });
    }
  }
  const quiet = colour("--quiet");
  const axis = { stroke: quiet, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height, series: lines, bands,
    legend: { show: false },
    cursor: { sync: { key: SYNC.key }, y: false, drag: { x: true, y: false }, points: { size: 7 } },
    scales: { x: { time: false }, y: { range: range ?? padded } },
    axes: [
      { ...axis, size: 26, gap: 3, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] },
      { ...axis, size: 52, gap: 4, values: (_, ticks) => ticks.map((each) => show(each)) },
    ],
    hooks: {
      setCursor: [(made) => moved(made.cursor.idx ?? null)],
      draw: [(made) => drawMarks(made, marks()), (made) => drawWhiskers(made, series)],
    },
  };
}

// A little more than what the curves need; around one value, a range in which it is a line.
function padded(_, low, high) {
  if (low === null || low === undefined) return [0, 1];
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, low + Math.abs(low) * 0.1];
  const more = (high - low) * 0.06;
  return [low >= 0 && low < (high - low) * 0.3 ? Math.min(0, low) - (low < more ? more / 2 : 0) : low - more, high + more];
}

// A dashed line where each finding began.
function drawMarks(made, marks) {
  const { ctx, bbox } = made;
  ctx.save();
  for (const mark of marks) {
    const x = Math.round(made.valToPos(mark.x, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(mark.bad ? "--bad" : "--warn");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const size = 4 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x - size, bbox.top);
    ctx.lineTo(x + size, bbox.top);
    ctx.lineTo(x, bbox.top + size * 1.5);
    ctx.fill();
  }
  ctx.restore();
}

function drawWhiskers(made, series) {
  const { ctx } = made;
  let column = 1;
  ctx.save();
  for (const each of series) {
    if (each.whiskers && each.low) {
      ctx.strokeStyle = colour(each.colour);
      ctx.lineWidth = 1.5 * devicePixelRatio;
      made.data[0].forEach((x, row) => {
        const [low, high] = [made.data[column + 1][row], made.data[column + 2][row]];
        if (low === null || low === undefined) return;
        const [left, top, bottom] = [made.valToPos(x, "x", true), made.valToPos(high, "y", true), made.valToPos(low, "y", true)];
        ctx.beginPath();
        ctx.moveTo(left, top);
        ctx.lineTo(left, bottom);
        for (const end of [top, bottom]) {
          ctx.moveTo(left - 4 * devicePixelRatio, end);
          ctx.lineTo(left + 4 * devicePixelRatio, end);
        }
        ctx.stroke();
      });
    }
    column += each.low ? 3 : 1;
  }
  ctx.restore();
}
