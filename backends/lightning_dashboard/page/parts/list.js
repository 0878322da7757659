// A list that may have 100,000 lines: only those in sight exist, and only pages in sight are asked for.
import { Virtualizer, elementScroll, observeElementOffset, observeElementRect, useEffect, useLayoutEffect, useRef, useState } from "../vendor/parts.js";
import { html } from "./ui.js";
import { fetchView, pulse } from "../data.js";
import { narrow } from "./theme.js";

// columns: [{name, width, narrow: its width on a phone, sort, right, wide: not on a phone, cell(row)}]; open(row): what a line leads to.
export function LongList({ view, params, columns: all, pageSize = 100, height = 38, sort, down, onSort, open, label, onPage }) {
  const columns = narrow.value ? all.filter((each) => !each.wide) : all;
  const key = JSON.stringify(params);
  const [pages, setPages] = useState({ key, total: null, rows: new Map(), error: "" });
  const asked = useRef({ key, pages: new Set() });
  const [, redraw] = useState(0);
  const scroller = useRef(null);
  const virtual = useRef(null);

  const ask = (page, again = false) => {
    if (!again && asked.current.key === key && asked.current.pages.has(page)) return;
    if (asked.current.key !== key) asked.current = { key, pages: new Set() };
    asked.current.pages.add(page);
    fetchView(view, { ...params, offset: page * pageSize, limit: pageSize }).then(
      (found) => {
        if (asked.current.key !== key) return;
        if (page === 0) onPage?.(found);
        setPages((before) => {
          const rows = before.key === key ? new Map(before.rows) : new Map();
          found.rows.forEach((row, place) => rows.set(page * pageSize + place, row));
          return { key, total: found.total, rows, error: "" };
        });
      },
      (error) => setPages({ key, total: 0, rows: new Map(), error: error.message }),
    );
  };

  useEffect(() => {
    scroller.current?.scrollTo({ top: 0 });
    ask(0);
  }, [key]);
  useEffect(() => {
    const shown = virtual.current?.getVirtualItems() ?? [];
    const first = Math.floor((shown[0]?.index ?? 0) / pageSize);
    const last = Math.floor((shown.at(-1)?.index ?? 0) / pageSize);
    if (pulse.value.version) for (const page of new Set([0, first, last])) ask(page, true);
  }, [pulse.value.version]);

  const total = pages.key === key ? pages.total ?? 0 : 0;
  if (!virtual.current) {
    virtual.current = new Virtualizer({
      count: 0, getScrollElement: () => scroller.current, estimateSize: () => height, overscan: 12,
      scrollToFn: elementScroll, observeElementRect, observeElementOffset, onChange: () => redraw((n) => n + 1),
    });
  }
  virtual.current.setOptions({ ...virtual.current.options, count: total });
  useLayoutEffect(() => virtual.current._didMount(), []);
  useLayoutEffect(() => virtual.current._willUpdate());
  const items = virtual.current.getVirtualItems();
  useEffect(() => {
    for (const item of items) ask(Math.floor(item.index / pageSize));
  });

  const grid = { gridTemplateColumns: columns.map((each) => (narrow.value && each.narrow) || each.width).join(" ") };
  const move = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const line = event.target.closest?.(".line");
    if (!by || !line) return;
    event.preventDefault();
    const next = Number(line.dataset.index) + by;
    virtual.current.scrollToIndex(next);
    requestAnimationFrame(() => scroller.current.querySelector(`[data-index="${next}"] a.open`)?.focus());
  };
  return html`<div class="list" role="table" aria-label=${label} aria-rowcount=${total + 1}>
    <div role="rowgroup"><div class="headline" role="row" style=${grid}>
      ${columns.map((each) => html`<div class="cell ${each.right ? "right" : ""}" role="columnheader"
        aria-sort=${each.sort === sort ? (down ? "descending" : "ascending") : undefined}>
        ${each.sort ? html`<button aria-pressed=${each.sort === sort} onClick=${() => onSort(each.sort)}>${each.name}${each.sort === sort ? (down ? " ↓" : " ↑") : ""}</button>` : each.name}
      </div>`)}
    </div></div>
    <div class="viewport" role="rowgroup" ref=${scroller} onKeyDown=${move} tabindex="-1">
      ${pages.error && html`<div class="error" role="alert">${pages.error}</div>`}
      ${!pages.error && pages.key === key && pages.total === 0 && html`<div class="empty">Nothing matches.</div>`}
      <div class="space" style=${{ height: `${virtual.current.getTotalSize()}px` }}>
        ${items.map((item) => {
          const row = pages.rows.get(item.index);
          const goes = row && open(row);
          return html`<div class="line" role="row" key=${item.index} data-index=${item.index} aria-rowindex=${item.index + 2}
            onClick=${(event) => goes && !event.target.closest("a") && !getSelection().toString() && (location.hash = goes)}
            style=${{ ...grid, height: `${height}px`, transform: `translateY(${item.start}px)` }}>
            ${row
              ? columns.map((each) => html`<div class="cell ${each.right ? "right number" : ""}" role="cell">${each.cell(row, goes)}</div>`)
              : html`<div class="cell quiet" role="cell">…</div>`}
          </div>`;
        })}
      </div>
    </div>
  </div>`;
}
