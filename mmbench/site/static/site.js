// What pages do: choose light or dark, sort, filter, show hints, compare pictures, draw charts. No request is made.
"use strict";
const all = (selector, below = document) => [...below.querySelectorAll(selector)];
const probe = document.createElement("span");
const colour = (name) => { // as a canvas takes it: light-dark() settled
  probe.hidden = true;
  document.body.append(probe);
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
const redrawn = []; // charts, drawn again in other colours

// Light and dark
const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const showTheme = () => {
  theme.setAttribute("aria-pressed", String(isDark()));
  redrawn.forEach((draw) => draw());
};
theme.hidden = false;
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("mmbench-theme", document.documentElement.dataset.theme); } catch { /* kept nowhere */ }
  showTheme();
});
system.addEventListener("change", showTheme);
showTheme();

// Shares of a meter
all("[data-grow]").forEach((part) => part.style.setProperty("--share", part.dataset.grow));

// Sorting
const keyOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = text === "" || text === "-" ? NaN : Number(text.replace(/,/g, "").split(" ")[0]);
  return { text: text.toLowerCase(), number, isEmpty: text === "" || text === "-" };
};
const compared = (a, b) => {
  if (!Number.isNaN(a.number) && !Number.isNaN(b.number)) return a.number - b.number;
  return a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
};
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  all("thead th", table).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const first = heading.dataset.better === "higher" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = before === first ? other : first;
      all("th[aria-sort]", table).forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
      rows.sort((a, b) => a.key.isEmpty - b.key.isEmpty || sign * compared(a.key, b.key)); // what is missing is last
      body.append(...rows.map(({ row }) => row));
    });
  });
}

// Filters
for (const name of new Set(all("[data-filter]").map((field) => field.dataset.filter))) {
  const fields = all(`[data-filter="${name}"]`);
  const items = [...document.getElementById(name).children];
  const count = document.querySelector(`[data-count="${name}"]`);
  const apply = () => {
    let shown = 0;
    for (const item of items) {
      const text = item.dataset.text ?? (item.dataset.text = item.textContent.toLowerCase());
      const fits = fields.every((field) => {
        const wanted = field.value.trim().toLowerCase();
        if (field.dataset.by) return !wanted || item.dataset[field.dataset.by].split("|").includes(wanted);
        return wanted.split(/\s+/).every((word) => text.includes(word));
      });
      item.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === items.length ? `${shown} shown` : `${shown} of ${items.length} shown`;
  };
  fields.forEach((field) => field.addEventListener("input", apply));
  apply();
}

// Hints, when something is pointed at or focused
const hint = document.getElementById("hint");
const placeHint = (of) => {
  const at = of.getBoundingClientRect();
  const box = hint.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left + at.width / 2 - box.width / 2, innerWidth - box.width - 8));
  const below = at.bottom + 8 + box.height <= innerHeight || at.top < box.height + 8;
  hint.style.left = `${left}px`;
  hint.style.top = `${below ? at.bottom + 8 : at.top - box.height - 8}px`;
};
const showHint = (of) => {
  hint.textContent = of.dataset.hint;
  hint.hidden = false;
  of.setAttribute("aria-describedby", "hint");
  placeHint(of);
};
const hideHint = () => {
  hint.hidden = true;
  all("[aria-describedby=hint]").forEach((one) => one.removeAttribute("aria-describedby"));
};
const hinted = (event) => (event.target instanceof Element ? event.target.closest("[data-hint]") : null);
for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => { const of = hinted(event); if (of) { hideHint(); showHint(of); } });
}
document.addEventListener("pointerout", (event) => { if (hinted(event) && hinted(event) !== document.activeElement) hideHint(); });
document.addEventListener("focusout", hideHint);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideHint(); });
document.addEventListener("scroll", () => { // what is focused scrolls into view a moment after it is: its hint goes with it
  const of = hint.hidden ? null : document.activeElement.closest("[aria-describedby=hint]");
  const at = of?.getBoundingClientRect();
  if (at && at.bottom > 0 && at.top < innerHeight) placeHint(of); else hideHint();
}, { capture: true, passive: true });

// Before and after
for (const viewer of all(".compare")) {
  const range = viewer.querySelector("input");
  range.addEventListener("input", () => viewer.style.setProperty("--at", `${range.value}%`));
  const buttons = all(`table[data-viewer="${viewer.dataset.viewer}"] button`);
  buttons.forEach((button) => button.setAttribute("aria-pressed", "false"));
  buttons.forEach((button) => button.addEventListener("click", () => {
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    const [before, after] = [viewer.querySelector(".before"), viewer.querySelector(".after")];
    before.src = button.dataset.before;
    after.src = button.dataset.after;
    after.alt = button.dataset.label;
    viewer.querySelector(".right").textContent = button.dataset.label;
    viewer.querySelector(".told").textContent = button.dataset.told;
  }));
}

// One metric against another
const SVG = "http://www.w3.org/2000/svg";
const drawn = (kind, attributes, ...children) => {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const ticksOf = (low, high) => {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((part) => part * power).find((size) => size >= rough);
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high + step * 1e-9; place++) found.push(place * step);
  return found;
};
const WIDTH = 720, HEIGHT = 440, LEFT = 76, BOTTOM = 56, EDGE = 18;
for (const chart of all(".scatter")) {
  const content = JSON.parse(chart.querySelector("script").textContent);
  const [across, up] = ["x", "y"].map((axis) => chart.querySelector(`[data-axis=${axis}]`));
  const sets = [...new Set(content.points.map((point) => point.data))];
  const legend = chart.querySelector(".legend");
  sets.forEach((name, number) => {
    const item = document.createElement("li");
    item.textContent = name;
    item.style.setProperty("--tone", `var(--c${number % 8})`);
    legend.append(item);
  });
  const draw = () => {
    const [x, y] = [across.value, up.value];
    const points = content.points.filter((point) => x in point.values && y in point.values);
    const plot = chart.querySelector(".plot");
    plot.replaceChildren();
    chart.querySelector("[role=status]").textContent = points.length ? "" : "No row has both.";
    if (!points.length) return;
    const scale = (name, from, to) => {
      const values = points.map((point) => point.values[name]);
      let [low, high] = [Math.min(...values), Math.max(...values)];
      const room = (high - low || Math.abs(high) || 1) * 0.08;
      [low, high] = [low - room, high + room];
      return { low, high, at: (value) => from + ((value - low) / (high - low)) * (to - from) };
    };
    const [sx, sy] = [scale(x, LEFT, WIDTH - EDGE), scale(y, HEIGHT - BOTTOM, EDGE)];
    const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
    const text = (words, place) => drawn("text", place, words);
    const shown = (value) => String(Number(value.toPrecision(4)));
    for (const value of ticksOf(sx.low, sx.high)) {
      svg.append(drawn("line", { class: "grid", x1: sx.at(value), x2: sx.at(value), y1: EDGE, y2: HEIGHT - BOTTOM }));
      svg.append(text(shown(value), { x: sx.at(value), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }));
    }
    for (const value of ticksOf(sy.low, sy.high)) {
      svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - EDGE, y1: sy.at(value), y2: sy.at(value) }));
      svg.append(text(shown(value), { x: LEFT - 8, y: sy.at(value) + 4, "text-anchor": "end" }));
    }
    svg.append(text(x, { x: (LEFT + WIDTH - EDGE) / 2, y: HEIGHT - 12, "text-anchor": "middle" }));
    const middle = (EDGE + HEIGHT - BOTTOM) / 2;
    svg.append(text(y, { x: 18, y: middle, "text-anchor": "middle", transform: `rotate(-90 18 ${middle})` }));
    const bare = (name) => name.replace(" (published)", "");
    const [low, high] = [Math.max(sx.low, sy.low), Math.min(sx.high, sy.high)];
    if (bare(x) === bare(y) && low < high) { // where found and published would be the same
      svg.append(drawn("line", { class: "same", x1: sx.at(low), y1: sy.at(low), x2: sx.at(high), y2: sy.at(high) }));
    }
    for (const point of points) {
      const [px, py] = [sx.at(point.values[x]), sy.at(point.values[y])];
      const words = `${point.label} on ${point.data}\n${x}: ${shown(point.values[x])}\n${y}: ${shown(point.values[y])}`;
      const dot = drawn("circle", { class: "dot", cx: px, cy: py, r: 6 });
      dot.style.fill = `var(--c${sets.indexOf(point.data) % 8})`;
      const group = drawn("g", { tabindex: 0, role: "img", "aria-label": words.replace(/\n/g, ", ") }, dot);
      group.dataset.hint = words;
      svg.append(group);
    }
    plot.append(svg);
  };
  [across, up].forEach((field) => field.addEventListener("input", draw));
  draw();
}

// Lines
const lines = (holder) => {
  const content = JSON.parse(holder.querySelector("script").textContent);
  const plot = holder.querySelector(".plot");
  const axis = (label) => ({ label, stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { stroke: () => colour("--line") } });
  const dashes = [[], [6, 4], [2, 3]];
  const made = new uPlot({
    width: Math.max(300, Math.min(plot.clientWidth || 720, 860)),
    height: 340,
    scales: { x: { time: false } },
    axes: [axis(content.x_label), { ...axis(content.y_label), size: 64 }],
    series: [{ label: content.x_label }, ...content.series.map((line, number) => ({
      label: line.label,
      stroke: () => colour(`--c${number % 8}`),
      width: 1.6,
      dash: dashes[Math.floor(number / 8) % dashes.length],
      spanGaps: true,
    }))],
  }, [content.x, ...content.series.map((line) => line.y)], plot);
  redrawn.push(() => made.redraw());
};
for (const holder of all(".lines")) {
  if (holder.tagName !== "DETAILS") lines(holder);
  else holder.addEventListener("toggle", () => { if (holder.open && !holder.querySelector(".uplot")) lines(holder); });
}
