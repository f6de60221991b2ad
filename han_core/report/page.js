// What the report can do beyond being read. Without it all content is there: nothing is fetched, nothing is made here.
"use strict";

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const textOf = (cell) => cell.textContent.trim();

// -- Tables: sort, filter, copy.

const NOTHING = new Set(["", "-", "missing"]); // sorted last, whatever the direction

function numberIn(text) {
  const found = text.replaceAll(",", "").match(/^[-+]?\d*\.?\d+/); // "62.5 ± 1.2 (20 / 32)" is 62.5
  return found ? Number(found[0]) : NaN;
}

function compare(a, b, direction) {
  if (NOTHING.has(a) || NOTHING.has(b)) return NOTHING.has(a) - NOTHING.has(b);
  const [x, y] = [numberIn(a), numberIn(b)];
  const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  return direction * order;
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = make("button", { type: "button", title: "sort by this column" });
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const words = original.every((row) => Number.isNaN(numberIn(textOf(row.cells[column]))));
      const turns = words ? ["ascending", "descending", ""] : ["descending", "ascending", ""];
      const turn = turns[(turns.indexOf(head.getAttribute("aria-sort") ?? "") + 1) % 3];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (turn) head.setAttribute("aria-sort", turn);
      const direction = turn === "ascending" ? 1 : -1;
      const keyed = original.map((row) => [textOf(row.cells[column]), row]);
      if (turn) keyed.sort(([a], [b]) => compare(a, b, direction));
      body.append(...keyed.map(([, row]) => row));
    };
  }
}

const shownRows = (table) =>
  [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(textOf));

const asCsv = (rows) =>
  rows.map((row) => row.map((cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(",")).join("\n") + "\n";

const LATEX = {
  "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "“": "``", "”": "''",
  "…": "\\ldots{}", "<": "$<$", ">": "$>$", "|": "$|$",
};

function asLatex([head, ...rows]) {
  const line = (cells) =>
    cells.map((cell) => cell.replace(/[\\~^±“”…<>|&%$#_{}]/g, (sign) => LATEX[sign] ?? `\\${sign}`)).join(" & ") + " \\\\";
  const columns = "l" + "r".repeat(head.length - 1);
  return ["\\begin{tabular}{" + columns + "}", "\\hline", line(head), "\\hline", ...rows.map(line), "\\hline", "\\end{tabular}", ""].join("\n");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a browser that keeps the clipboard from pages without a server
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function addTools(box) {
  const table = box.querySelector("table");
  const rows = [...table.tBodies[0].rows];
  const said = make("span", { className: "said", role: "status" });
  const tools = make("div", { className: "tools" });
  if (rows.length > 3) {
    const filter = make("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows" });
    let texts; // of the rows; read once they are wanted, because there may be thousands
    filter.oninput = () => {
      texts ??= rows.map((row) => textOf(row).toLowerCase());
      const wanted = filter.value.toLowerCase().split(/\s+/);
      rows.forEach((row, n) => { row.hidden = !wanted.every((word) => texts[n].includes(word)); });
      said.textContent = filter.value ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
    };
    tools.append(filter);
  }
  for (const [name, written] of [["CSV", asCsv], ["LaTeX", asLatex]]) {
    const button = make("button", { type: "button", title: `copy the rows that are shown as ${name}` }, `Copy ${name}`);
    button.onclick = async () => {
      const shown = shownRows(table);
      await copy(written(shown));
      said.textContent = `copied, ${shown.length - 1} rows`;
    };
    tools.append(button);
  }
  tools.append(said, make("span", { className: "cue" }, "more columns →"));
  box.prepend(tools);
}

for (const box of document.querySelectorAll(".table")) {
  makeSortable(box.querySelector("table"));
  addTools(box);
}

// -- What is out of sight to the right is said.

for (const scroll of document.querySelectorAll(".scroll")) {
  const box = scroll.parentElement;
  if (!box.querySelector(".cue")) scroll.before(make("p", { className: "cue" }, "more →"));
  const mark = () => box.classList.toggle("cut", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
  new ResizeObserver(mark).observe(scroll); // also when a fold is opened
  scroll.addEventListener("scroll", mark, { passive: true });
}

// -- Confusion: a cell opens its clips.

function openClips(cell, clips, into) {
  const heads = [...clips.tHead.rows[0].cells].map(textOf);
  const [actual, predicted] = [heads.indexOf("Class"), heads.indexOf("Predicted")];
  const rows = [...clips.tBodies[0].rows].filter(
    (row) => textOf(row.cells[actual]) === cell.dataset.class && textOf(row.cells[predicted]) === cell.dataset.predicted,
  );
  const list = make("ul");
  for (const row of rows) {
    const item = make("li");
    const cells = [...row.cells].map((one, n) => [heads[n], textOf(one), n]);
    const rest = cells.filter(([, text, n]) => n && n !== actual && n !== predicted && text !== "-");
    item.append(make("b", {}, cells[0][1]), rest.map(([head, text]) => ` · ${head} ${text}`).join(""));
    const playing = document.querySelector(`figure[data-clip="${CSS.escape(cells[0][1])}"] video`);
    if (playing) item.append(Object.assign(playing.cloneNode(true), { muted: true }));
    list.append(item);
  }
  const title = make("b", {}, cell.getAttribute("aria-label"));
  into.replaceChildren(title, rows.length ? list : make("p", {}, "These clips are not in the table of predictions."));
}

for (const cell of document.querySelectorAll(".matrix a")) {
  cell.addEventListener("click", (event) => {
    const clips = document.getElementById(cell.getAttribute("href").slice(1)).querySelector("table");
    event.preventDefault();
    const figure = cell.closest(".matrix");
    figure.querySelectorAll("a.open").forEach((other) => other.classList.remove("open"));
    cell.classList.add("open");
    openClips(cell, clips, figure.querySelector(".opened"));
  });
}

// -- Values under the pointer.

const tip = make("div", { className: "tip", hidden: true, role: "tooltip" });
document.body.append(tip);

function showTip(text, event) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, document.documentElement.clientWidth - width - 4))}px`;
  tip.style.top = `${event.clientY + 16 + height < innerHeight ? event.clientY + 16 : event.clientY - height - 8}px`;
}
const hideTip = () => { tip.hidden = true; };

for (const title of document.querySelectorAll("svg:not(.lines) title")) {
  const [shape, text] = [title.parentElement, title.textContent];
  title.remove(); // or the browser would show it, too, a second later
  shape.addEventListener("pointermove", (event) => showTip(text, event));
  shape.addEventListener("pointerleave", hideTip);
}

for (const chart of document.querySelectorAll("svg.lines")) {
  chart.querySelectorAll("circle").forEach((mark) => mark.remove()); // one value each; here all at once
  const lines = [...chart.querySelectorAll(".line")].map((line) => {
    const [x, y] = [line.dataset.x, line.dataset.y].map((values) => values.split(" "));
    const places = [...line.querySelector("polyline").points].map((point) => point.x);
    return { name: line.dataset.name, x, y, places };
  }).filter((line) => line.places.length);
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "path");
  rule.setAttribute("class", "rule");
  chart.append(rule);
  chart.addEventListener("pointermove", (event) => {
    if (!lines.length) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    const all = lines.flatMap((line) => line.places.map((place, n) => ({ place, step: line.x[n] })));
    const near = all.reduce((best, one) => (Math.abs(one.place - at) < Math.abs(best.place - at) ? one : best));
    rule.setAttribute("d", `M${near.place} 10V194`);
    const values = lines.filter((line) => line.x.includes(near.step)).map((line) => `${line.name}: ${line.y[line.x.indexOf(near.step)]}`);
    showTip([`${chart.dataset.label} ${near.step}`, ...values].join("\n"), event);
  });
  chart.addEventListener("pointerleave", () => { hideTip(); rule.removeAttribute("d"); });
}

// -- Clips play while they are in sight, unless the reader has asked for less motion.

if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? target.play().catch(() => {}) : target.pause();
  }, { threshold: 0.6 });
  document.querySelectorAll("video").forEach((video) => watch.observe(video));
}
