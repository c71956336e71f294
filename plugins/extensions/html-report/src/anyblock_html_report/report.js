"use strict";
(() => {
const DATA = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip"), said = document.getElementById("said"), root = document.documentElement;
const LEFT = 150, KINDS = {attention: "attention", mamba: "Mamba", ffn: "FFN", experts: "experts", linear: "linear map"};
const HALF = {attention: "mixer", ffn: "FFN"};

// Numbers.
const units = (value, steps) => { for (const [size, name] of steps) if (Math.abs(value) >= size) return d3.format(".3~r")(value / size) + " " + name; return null; };
const bytes = v => units(v, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) ?? `${d3.format(".3~r")(v)} B`;
const count = v => units(v, [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) ?? d3.format(".3~r")(v);
const quantity = (v, unit) => unit === "bytes" ? bytes(v) : unit === "ms" ? `${d3.format(".4~r")(v)} ms` : count(v);
const nats = v => v == null ? "not finite" : v === 0 ? "0" : Math.abs(v) < 1e-3 ? d3.format(".2e")(v) : d3.format(".3~r")(v);
const percent = v => d3.format(".0%")(v);
const shape = label => label === "no_op" ? "removed" : label === "linear" ? "linear map" : label === "teacher" ? "unchanged" : label.replace("ffn_intermediate=", "width ").replace("kv_heads=", "KV heads ").replace("query_groups=", "query groups ").replace("experts_removal=", "experts ").replace("expert_intermediate=", "expert width ").replace("mamba_heads=", "Mamba heads ").replace("=", " ").replaceAll("_", " ");
const words = label => { const [own, type] = label.split("@"); return shape(own) + (type ? ` in ${type}` : ""); };
const short = (text, length) => text.length > length ? text.slice(0, length - 1) + "…" : text;

// The tooltip, for the pointer and for the keyboard.
function show(lines, x, y) {
  tip.replaceChildren(...lines.map((line, i) => { const e = document.createElement(i ? "span" : "b"); e.textContent = line; if (i) e.style.display = "block"; return e; }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18) + "px";
}
const hide = () => { tip.hidden = true; };
document.addEventListener("keydown", e => { if (e.key === "Escape") hide(); });
document.addEventListener("scroll", hide, {passive: true});

// A picture of cells: one stop of the tab key, arrow keys move between columns and rows.
function cells(figure, svg, label, grid, lines) {
  // grid: rows of cells {x, y, w, h, ...} or null.
  const lit = svg.append("rect").attr("class", "lit").attr("rx", 2).attr("visibility", "hidden");
  const node = svg.node();
  let at = null;
  const find = (x, y) => { for (let r = 0; r < grid.length; r++) { const row = grid[r]; for (let c = 0; c < row.length; c++) { const cell = row[c]; if (cell && x >= cell.x && x < cell.x + cell.w && y >= cell.y && y < cell.y + cell.h) return [r, c]; } } return null; };
  const put = (place, x, y) => {
    const cell = grid[place[0]][place[1]];
    lit.attr("x", cell.x).attr("y", cell.y).attr("width", cell.w).attr("height", cell.h).attr("visibility", "visible");
    show(lines(cell), x, y);
  };
  const off = () => { lit.attr("visibility", "hidden"); hide(); };
  svg.attr("role", "img").attr("aria-label", label);
  svg.on("pointermove", e => { const [x, y] = d3.pointer(e, node), place = find(x, y); if (place) put(place, e.clientX, e.clientY); else off(); }).on("pointerleave", off);
  figure.tabIndex = 0;
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-roledescription", "picture of cells");
  figure.setAttribute("aria-label", label + " Arrow keys move between cells.");
  const speak = () => {
    const cell = grid[at[0]][at[1]], box = node.getBoundingClientRect();
    put(at, box.left + cell.x + cell.w, box.top + cell.y);
    said.textContent = lines(cell).join(". ");
  };
  figure.onkeydown = e => {
    const move = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[e.key];
    if (!move) return;
    e.preventDefault();
    let [r, c] = at ?? [move[0] < 0 ? grid.length : move[0] ? -1 : 0, move[1] < 0 ? grid[0].length : move[1] ? -1 : 0];
    do { r += move[0]; c += move[1]; } while (grid[r] && c >= 0 && c < grid[r].length && !grid[r][c]);
    if (grid[r]?.[c]) { at = [r, c]; speak(); }
  };
  figure.onblur = () => { at = null; off(); };
}
const legend = items => {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [mark, text] of items) { const item = document.createElement("li"); item.innerHTML = mark; item.append(text); list.append(item); } // marks are constants of this file
  return list;
};
const swatch = (fill, more = "") => `<svg width="13" height="13" aria-hidden="true"><rect x="1" y="1" width="11" height="11" rx="2" fill="${fill}" ${more}/></svg>`;
const space = figure => Math.max(320, figure.parentElement.clientWidth || 1080);
const column = (figure, layers) => Math.max(7, Math.min(104, Math.floor((space(figure) - LEFT - 10) / Math.max(1, layers))));

function architecture(figure, run) {
  const L = run.layers.length, w = column(figure, L), high = 96, band = 24, top = 22, gap = Math.min(6, Math.max(1, w * 0.16));
  const width = LEFT + w * L + 10, height = top + 2 * high + band + 24;
  const svg = d3.create("svg").attr("width", width).attr("height", height).attr("viewBox", [0, 0, width, height]);
  const grid = [[], []], seen = new Set();
  let removed = false, changed = 0;
  for (const [row, half] of ["attention", "ffn"].entries()) {
    const base = row ? top + high + band : top + high;
    svg.append("text").attr("class", "axis strong").attr("x", LEFT - 14).attr("y", base + (row ? 14 : -high + 10)).attr("text-anchor", "end").text(row ? "feed-forward" : "mixer");
    svg.append("text").attr("class", "axis").attr("x", LEFT - 14).attr("y", base + (row ? 29 : -high + 25)).attr("text-anchor", "end").text("share kept");
    run.layers.forEach((layer, i) => {
      const one = layer[half], x = LEFT + i * w + gap / 2, bw = w - gap;
      if (one.kind === "removed") { svg.append("line").attr("class", "none").attr("x1", x + bw / 2 - Math.min(4, bw / 4)).attr("x2", x + bw / 2 + Math.min(4, bw / 4)).attr("y1", base + (row ? 8 : -8)).attr("y2", base + (row ? 8 : -8)); grid[row].push(null); return; }
      const y = row ? base : base - high, full = high * one.share;
      svg.append("rect").attr("class", "ghost").attr("x", x + .5).attr("y", y + .5).attr("width", bw - 1).attr("height", high - 1).attr("rx", Math.min(3, bw / 4));
      if (one.left === "removed" || one.left === "linear") {
        const cx = x + bw / 2, cy = y + high / 2, r = Math.min(6, bw / 3);
        if (one.left === "linear") { svg.append("rect").attr("x", x).attr("y", row ? base : base - 7).attr("width", bw).attr("height", 7).attr("rx", 2).attr("fill", "var(--linear)"); seen.add("linear"); }
        else { removed = true; svg.append("path").attr("class", "removed-x").attr("d", `M${cx - r},${cy - r}L${cx + r},${cy + r}M${cx - r},${cy + r}L${cx + r},${cy - r}`); }
      } else {
        seen.add(one.left);
        svg.append("rect").attr("x", x).attr("y", row ? base : base - full).attr("width", bw).attr("height", full).attr("rx", Math.min(3, bw / 4)).attr("fill", `var(--${one.left})`);
      }
      const [rest, all] = one.units;
      if (all > 1 && high / all >= 5) for (let k = 1; k < all; k++) { const cut = row ? base + high * k / all : base - high * k / all; if (k < rest || (k > rest)) svg.append("line").attr("class", k < rest ? "unit" : "ghost").attr("x1", x).attr("x2", x + bw).attr("y1", cut).attr("y2", cut).attr("opacity", k < rest ? 1 : .45); }
      if (one.child !== one.teacher) changed++;
      if (w >= 34 && one.left !== "removed" && one.left !== "linear") svg.append("text").attr("class", "axis" + (one.child !== one.teacher ? " strong" : "")).attr("x", x + bw / 2).attr("y", row ? base + high + 14 : base - high - 7).attr("text-anchor", "middle").text(one.child.split(" ")[0]);
      grid[row].push({x, y, w: bw, h: high, i, half, ...one});
    });
  }
  const every = Math.max(1, Math.ceil(24 / w));
  run.layers.forEach((_, i) => { if (i % every === 0) svg.append("text").attr("class", "axis").attr("x", LEFT + i * w + w / 2).attr("y", top + high + band / 2 + 4).attr("text-anchor", "middle").text(i); });
  svg.append("text").attr("class", "axis").attr("x", LEFT - 14).attr("y", top + high + band / 2 + 4).attr("text-anchor", "end").text("layer");
  const marks = Object.entries(KINDS).filter(([kind]) => seen.has(kind)).map(([kind, name]) => [swatch(`var(--${kind})`), name]);
  marks.push([swatch("none", 'stroke="var(--ghost)"'), "teacher"]);
  if (removed) marks.push(['<svg width="13" height="13" aria-hidden="true"><path class="removed-x" d="M3,3L10,10M3,10L10,3"/></svg>', "removed"]);
  figure.before(legend(marks));
  figure.append(svg.node());
  cells(figure, svg, `Architecture of ${L} layers; ${changed} halves differ from the teacher.`, grid, c => {
    const lines = [`Layer ${c.i} · ${HALF[c.half]}`, c.child === c.teacher ? c.child : `${c.teacher} → ${c.child}`];
    if (c.child !== c.teacher && c.share) lines.push(`${percent(c.share)} kept`);
    const gone = c.removed ?? {};
    if (gone.params) lines.push(`${count(gone.params)} parameters removed`);
    if (gone.kv_memory) lines.push(`${bytes(gone.kv_memory)} of cache removed`);
    if (gone.bytes) lines.push(`${bytes(gone.bytes)} less in the file`);
    if (gone.latency) lines.push(`${nats(gone.latency)} ms saved`);
    if ("damage" in c) lines.push(`Alone it costs ${nats(c.damage)} ${run.unit}`);
    return lines;
  });
}

function damage(figure, run, order) {
  figure.replaceChildren();
  const L = run.layers.length, w = column(figure, L);
  const all = run.damage.flatMap(h => h.rows.flatMap(r => r.scores)).filter(s => s > 0);
  const low = d3.quantile(all, .02) ?? 1e-4, high = d3.max(all) ?? 1, level = s => s <= 0 ? 0 : Math.max(0, Math.min(8, Math.floor(9 * Math.log(s / low) / Math.log(high / low || 2))));
  let y = 8;
  const svg = d3.create("svg"), grid = [], outlines = [];
  for (const half of run.damage) {
    const mean = r => d3.mean(r.scores.filter(s => s != null && s >= 0)) ?? Infinity;
    const rows = order === "damage" ? d3.sort(half.rows, mean) : half.rows, h = rows.length <= 14 ? 22 : rows.length <= 30 ? 16 : 11;
    svg.append("text").attr("class", "axis strong").attr("x", LEFT - 14).attr("y", y + 10).attr("text-anchor", "end").text(HALF[half.half]);
    y += 18;
    for (const row of rows) {
      svg.append("text").attr("class", "axis").style("font-size", h < 16 ? "9px" : "11px").attr("x", LEFT - 14).attr("y", y + h / 2 + 3.5).attr("text-anchor", "end").text(short(words(row.label), 22)).append("title").text(row.label);
      const line = row.scores.map((score, i) => score == null ? null : {x: LEFT + i * w, y, w: w - (w > 10 ? 1.5 : .5), h: h - (h > 12 ? 1.5 : .5), i, score, saved: row.saved[i], half: half.half, label: row.label, chosen: half.chosen[i] === row.label});
      for (const c of line) if (c) { svg.append("rect").attr("class", c.score < 0 ? "ghost" : `q${level(c.score)}`).attr("x", c.x).attr("y", c.y).attr("width", c.w).attr("height", c.h).attr("rx", Math.min(2, c.w / 5)); if (c.chosen) outlines.push(c); }
      grid.push(line);
      y += h;
    }
    y += 12;
  }
  for (const c of outlines) svg.append("rect").attr("class", "chosen").attr("x", c.x - .25).attr("y", c.y - .25).attr("width", c.w + .5).attr("height", c.h + .5).attr("rx", 2);
  const every = Math.max(1, Math.ceil(24 / w));
  run.layers.forEach((_, i) => { if (i % every === 0) svg.append("text").attr("class", "axis").attr("x", LEFT + i * w + w / 2).attr("y", y + 6).attr("text-anchor", "middle").text(i); });
  svg.append("text").attr("class", "axis").attr("x", LEFT - 14).attr("y", y + 6).attr("text-anchor", "end").text("layer");
  const width = LEFT + w * L + 10;
  svg.attr("width", width).attr("height", y + 14).attr("viewBox", [0, 0, width, y + 14]);
  if (!figure.previousElementSibling?.matches(".legend")) figure.before(legend([[`<span class="scale" aria-hidden="true">${d3.range(9).map(i => `<i class="q${i}"></i>`).join("")}</span>`, `${nats(low)} to ${nats(high)} ${run.unit}, logarithmic`], [swatch("none", 'stroke="var(--outline)" stroke-width="1.75"'), "chosen"]]));
  figure.append(svg.node());
  cells(figure, svg, `Damage of ${all.length} candidates in ${L} layers; the chosen ones are outlined.`, grid, c => [`Layer ${c.i} · ${HALF[c.half]} · ${words(c.label)}`, c.score < 0 ? "damage is not finite" : c.label === "teacher" ? "no damage" : `${nats(c.score)} ${run.unit}`, c.saved ? `saves ${count(c.saved)} parameters` : "saves no parameters", ...(c.chosen ? ["chosen"] : [])]);
}

const STYLE = {background: "transparent", color: "var(--soft)", fontSize: "11.5px", fontFamily: "inherit", overflow: "visible"};
function plot(figure, label, options) {
  const node = Plot.plot({style: STYLE, ...options});
  const svg = node.matches?.("svg") ? node : node.querySelector("svg");
  svg.querySelectorAll("g[aria-label]").forEach(g => { g.dataset.mark = g.getAttribute("aria-label"); g.removeAttribute("aria-label"); }); // a picture has one name, not one per mark
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  figure.append(node);
}
const TIP = {fill: "var(--card)", stroke: "var(--line)", textPadding: 9, fontSize: 12, lineWidth: 26};

function front(figure, run, cost) {
  figure.replaceChildren();
  const f = run.front[cost];
  if (!f) { figure.textContent = "Nothing has been searched yet."; return; }
  const found = f.points.map(([x, y, kind, what]) => ({x, y, kind, what}));
  const least = Math.min(f.teacher * .45, ...found.map(p => p.x * .95));
  const predicted = f.predicted.filter(p => p[0] >= least), uniform = f.uniform.filter(p => p[0] >= least), quantized = f.quantized;
  const all = [...found.map(p => ({...p, name: p.what})), {x: f.teacher, y: 0, kind: "teacher", name: "teacher"}, ...uniform.filter(p => p[1] > 0).map(p => ({x: p[0], y: p[1], kind: "uniform", name: `the same everywhere: ${p[2]}`})), ...quantized.map(p => ({x: p[0], y: p[1], kind: "quantized", name: `the teacher in ${p[2]}`})), ...predicted.filter(p => p[1] > 0).map(p => ({x: p[0], y: p[1], kind: "front", name: "best promised at this size"}))];
  const title = p => `${p.name}\n${quantity(p.x, f.unit)} (${d3.format(".1%")(p.x / f.teacher)} of the teacher)\n${nats(p.y)} ${run.unit}${p.kind === "measured" ? ", measured" : p.kind === "teacher" ? "" : ", predicted"}`;
  // What is dear and far off would squeeze what matters into a corner.
  const most = Math.max(...found.map(p => p.y), 1e-3, d3.quantile(predicted.map(p => p[1]), .75) ?? 0) * 1.15;
  plot(figure, `${f.name} against KL: ${found.filter(p => p.kind === "measured").map(p => `${p.what} ${nats(p.y)} nats at ${quantity(p.x, f.unit)}`).join("; ")}`, {
    width: space(figure), height: 330, marginLeft: 48, marginBottom: 40, marginRight: 18, clip: false,
    x: {label: `${f.name} →`, tickFormat: v => quantity(v, f.unit), ticks: 5, domain: [least, f.teacher * 1.03]}, y: {label: `↑ ${run.metric}, ${run.unit}`, grid: true, ticks: 6, domain: [0, most]},
    marks: [
      Plot.ruleY([0], {stroke: "var(--line)"}),
      ...(f.budget ? [Plot.ruleX([f.budget], {stroke: "var(--soft)", strokeDasharray: "2,3"}), Plot.text([f.budget], {x: d => d, text: () => "budget", frameAnchor: "top", dy: -8, fill: "var(--soft)"})] : []),
      Plot.line(predicted, {x: "0", y: "1", stroke: "var(--accent)", strokeWidth: 1.75, clip: true}),
      Plot.dot(uniform.filter(p => p[1] > 0), {x: "0", y: "1", symbol: "square", r: 3, stroke: "var(--total)", fill: "var(--paper)", clip: true}),
      Plot.dot(quantized, {x: "0", y: "1", symbol: "triangle", r: 4.5, fill: "var(--total)", stroke: "var(--paper)", clip: true}),
      Plot.dot(found.filter(p => p.kind === "predicted"), {x: "x", y: "y", r: 4, stroke: "var(--accent)", fill: "var(--paper)", strokeWidth: 1.75}),
      Plot.dot(found.filter(p => p.kind === "measured"), {x: "x", y: "y", r: 6, fill: "var(--up)", stroke: "var(--paper)", symbol: "diamond2"}),
      Plot.dot([{x: f.teacher, y: 0}], {x: "x", y: "y", r: 5, fill: "var(--ink)"}),
      Plot.tip(all.filter(p => p.y <= most), Plot.pointer({x: "x", y: "y", title, ...TIP})),
    ],
  });
  const dot = (fill, stroke, shape) => `<svg width="13" height="13" aria-hidden="true"><${shape} fill="${fill}" stroke="${stroke}" stroke-width="1.75"/></svg>`;
  figure.prepend(legend([
    ['<svg width="18" height="13" aria-hidden="true"><path d="M0,7H18" stroke="var(--accent)" stroke-width="2"/></svg>', "predicted front", predicted.length],
    [dot("none", "var(--accent)", 'circle cx="6.5" cy="6.5" r="4"'), "searched", found.some(p => p.kind === "predicted")],
    [dot("var(--up)", "none", 'path d="M6.5,1L12,6.5L6.5,12L1,6.5Z"'), "measured", found.some(p => p.kind === "measured")],
    [dot("none", "var(--total)", 'rect x="2.5" y="2.5" width="8" height="8"'), "same in every layer", uniform.some(p => p[1] <= most && p[1] > 0)],
    [dot("var(--total)", "none", 'path d="M6.5,1.5L12,11.5H1Z"'), "quantized teacher", quantized.some(p => p[1] <= most)],
    [dot("var(--ink)", "none", 'circle cx="6.5" cy="6.5" r="4.5"'), "teacher", true],
  ].filter(entry => entry[2])));
}

function waterfall(figure, run) {
  const bars = run.waterfall.map((b, i) => ({...b, i, low: "from" in b ? Math.min(b.from, b.to) : 0, high: "from" in b ? Math.max(b.from, b.to) : b.to, kind: !("from" in b) ? (b.predicted ? "predicted" : "total") : b.to > b.from ? "up" : "down"}));
  if (!bars.length) { figure.textContent = "Nothing has been measured yet."; return; }
  const texts = d3.groups(bars, b => b.text).map(([text, group]) => ({text, from: group[0].i, to: group.at(-1).i}));
  const colour = {total: "var(--total)", predicted: "none", up: "var(--up)", down: "var(--down)"}, turned = bars.length > 4, places = Math.max(0, 2 - Math.floor(Math.log10(d3.max(bars, b => b.high) || 1))), half = (space(figure) - 76) / (bars.length + .22) * .39, fixed = v => v.toFixed(Math.min(6, places)).replace("-", "−");
  plot(figure, "KL by stage: " + bars.map(b => `${b.name} on ${b.text} ${nats(b.to)}`).join("; "), {
    width: space(figure), height: 372, marginLeft: 52, marginTop: 44, marginBottom: turned ? 92 : 40, marginRight: 24,
    x: {type: "band", label: null, domain: bars.map(b => b.i), tickFormat: i => bars[i].name, tickRotate: turned ? -40 : 0, tickSize: 0, padding: .22}, y: {label: null, grid: true, nice: true},
    marks: [
      Plot.ruleY([0], {stroke: "var(--line)"}),
      Plot.barY(bars, {x: "i", y1: "low", y2: "high", fill: b => colour[b.kind], stroke: b => b.kind === "predicted" ? "var(--total)" : "none", strokeDasharray: "3,2", rx: 2}),
      Plot.text(bars, {x: "i", y: "high", dy: -8, text: b => fixed("from" in b ? b.to - b.from : b.to), fill: "var(--ink)", fontSize: bars.length > 8 ? 9.5 : 11}),
      Plot.text(texts, {x: "from", frameAnchor: "top", dy: -34, text: t => t.text.replace(" text", ""), textAnchor: "start", dx: -half, fill: "var(--ink)", fontWeight: 600}),
      Plot.ruleX(texts.slice(1), {x: "from", stroke: "var(--line)", dx: -half - 4, insetTop: -38}),
      Plot.tip(bars, Plot.pointerX({x: "i", y: "high", title: b => `${b.name}\non the ${b.text}\n${"from" in b ? `${nats(b.from)} → ${nats(b.to)}` : `${nats(b.to)}${b.predicted ? ", predicted" : ", measured"}`}`, ...TIP})),
    ],
  });
}

function training(figure, run) {
  figure.classList.add("small");
  for (const stage of run.training) {
    const box = document.createElement("div"), head = document.createElement("p");
    head.className = "sub";
    head.textContent = stage.name + (stage.kept ? "" : " (dropped)");
    box.append(head);
    figure.append(box);
    const many = stage.rows.length > 9, names = stage.rows.map(r => r.where);
    plot(box, `${stage.name}: ` + stage.rows.map(r => `${r.where} from ${nats(r.before)} to ${nats(r.after)}`).join("; "), {
      width: Math.max(280, Math.min(520, space(figure) / Math.max(2, Math.min(3, run.training.length)) - 30)), height: 220, marginLeft: 46, marginTop: 26, marginBottom: many ? 78 : 34,
      x: {type: "point", label: null, domain: names, tickRotate: many ? -60 : 0, tickSize: 0, ticks: names.filter((_, i) => i % Math.ceil(names.length / 24) === 0), padding: .6}, y: {label: "↑ error", grid: true, zero: true, nice: true},
      marks: [
        Plot.ruleY([0], {stroke: "var(--line)"}),
        Plot.arrow(stage.rows, {x1: "where", x2: "where", y1: "before", y2: "after", stroke: r => r.after <= r.before ? "var(--down)" : "var(--up)", strokeWidth: 2, insetStart: 4, headLength: 6}),
        Plot.dot(stage.rows, {x: "where", y: "before", r: 3.5, stroke: "var(--total)", fill: "var(--paper)"}),
        Plot.dot(stage.rows, {x: "where", y: "after", r: 3.5, fill: r => r.after <= r.before ? "var(--down)" : "var(--up)"}),
        Plot.tip(stage.rows, Plot.pointerX({x: "where", y: "after", title: r => `${r.where}\n${nats(r.before)} → ${nats(r.after)}`, ...TIP})),
      ],
    });
  }
}

function curves(figure, run) {
  figure.classList.add("small");
  for (const stage of run.curves) {
    const box = document.createElement("div"), head = document.createElement("p"), many = stage.trainings.length, last = stage.tokens.at(-1);
    head.className = "sub";
    head.textContent = stage.name + (stage.kept ? "" : " (dropped)");
    box.append(head);
    figure.append(box);
    const colour = i => many === 1 ? "var(--accent)" : `var(--q${3 + Math.floor(5.999 * i / many)})`;
    const lines = stage.trainings.flatMap((t, i) => t.tokens.map((x, k) => ({x, y: t.loss[k], i, where: t.where})));
    const held = stage.trainings.flatMap((t, i) => t.held.map(([x, y]) => ({x, y, i, where: t.where, held: true})));
    const all = [...lines, ...held].map(p => p.y), low = d3.min(all.filter(y => y > 0)) ?? 1, wide = d3.max(all) / low > 30;
    const width = Math.max(280, Math.min(520, space(figure) / Math.max(2, Math.min(3, run.curves.length)) - 30));
    const x = {domain: [0, last], ticks: 4, tickFormat: v => v ? count(v) : "0"};
    const ends = t => `${t.where} from ${nats(t.held[0]?.[1])} to ${nats(d3.min(t.held, h => h[1]))}`;
    plot(box, `${stage.name}, ${stage.error} on held-out text while ${count(last)} tokens are trained on: ` + stage.trainings.slice(0, 8).map(ends).join("; ") + (many > 8 ? `; ${many - 8} more` : ""), {
      width, height: 230, marginLeft: 52, marginTop: 26, marginBottom: 22, marginRight: 14,
      x: {...x, label: null}, y: {label: `↑ ${stage.error}`, grid: true, nice: true, ...(wide ? {type: "log", domain: [low, d3.max(all)], ticks: 4, tickFormat: v => d3.format("~g")(v)} : {zero: true, ticks: 5})},
      marks: [
        Plot.line(lines.filter(p => !wide || p.y > 0), {x: "x", y: "y", z: "i", stroke: p => colour(p.i), strokeWidth: 1.25, strokeOpacity: many > 20 ? .5 : .8}),
        Plot.line(held.filter(p => !wide || p.y > 0), {x: "x", y: "y", z: "i", stroke: p => colour(p.i), strokeDasharray: "2,3"}),
        Plot.dot(held.filter(p => !wide || p.y > 0), {x: "x", y: "y", r: 3.5, fill: p => colour(p.i), stroke: "var(--paper)"}),
        Plot.tip([...lines, ...held], Plot.pointer({x: "x", y: "y", title: p => `${p.where}\n${nats(p.y)} ${p.held ? "on held-out text" : "on the text trained on"}\nafter ${count(p.x)} tokens`, ...TIP})),
      ],
    });
    const rate = stage.tokens.map((t, k) => ({x: t, y: stage.rate[k], step: stage.steps[k]}));
    plot(box, `${stage.name}: the learning rate rises to ${d3.format(".2~e")(d3.max(stage.rate))} and ends at ${d3.format(".2~e")(stage.rate.at(-1))} after ${stage.steps.at(-1)} steps`, {
      width, height: 96, marginLeft: 52, marginTop: 20, marginBottom: 32, marginRight: 14,
      x: {...x, label: many > 1 ? "tokens, of each layer →" : "tokens →"}, y: {label: "↑ learning rate", zero: true, ticks: 2, tickFormat: v => v ? d3.format(".2~e")(v) : "0"},
      marks: [
        Plot.line(rate, {x: "x", y: "y", stroke: "var(--total)", strokeWidth: 1.5}),
        Plot.tip(rate, Plot.pointerX({x: "x", y: "y", title: p => `step ${p.step}\n${d3.format(".3~e")(p.y)}`, ...TIP})),
      ],
    });
  }
}

function stages(figure, run) {
  if (!run.stages.length) { figure.textContent = "No stage has finished yet."; return; }
  const most = d3.max(run.stages, s => s.seconds);
  plot(figure, "Seconds by stage: " + run.stages.map(s => `${s.name} ${s.time}`).join("; "), {
    width: space(figure), height: run.stages.length * 25 + 34, marginLeft: LEFT, marginRight: 150, marginTop: 4,
    x: {label: "seconds →", grid: true, domain: [0, most || 1]}, y: {label: null, domain: run.stages.map(s => s.name), tickSize: 0, padding: .28},
    marks: [
      Plot.barX(run.stages, {y: "name", x: "seconds", fill: s => s.reused ? "var(--ghost)" : "var(--accent)", rx: 2}),
      Plot.text(run.stages, {y: "name", x: "seconds", dx: 7, textAnchor: "start", fill: "var(--ink)", text: s => `${s.time} · ${s.held}${s.reused ? " · reused" : ""}`}),
      Plot.tip(run.stages, Plot.pointerY({y: "name", x: "seconds", title: s => [s.name, s.time, `peak memory ${s.held}`, s.quality].filter(Boolean).join("\n"), ...TIP})),
    ],
  });
}

function compare(figure, runs) {
  const colours = ["var(--attention)", "var(--up)", "var(--ffn)", "var(--experts)", "var(--linear)", "var(--mamba)"], shown = runs.filter(r => r.front.params);
  if (!shown.length) return;
  const lines = shown.flatMap((r, i) => r.front.params.predicted.map(p => ({x: p[0] / r.front.params.teacher, y: p[1], colour: colours[i % 6], run: r.name}))).filter(p => p.x >= .45);
  const dots = shown.flatMap((r, i) => r.front.params.points.filter(p => p[2] === "measured").map(p => ({x: p[0] / r.front.params.teacher, y: p[1], what: p[3], colour: colours[i % 6], run: r.name})));
  const most = Math.max(...dots.map(p => p.y), 1e-3) * 2.2;
  plot(figure, "Measured KL against the share of parameters: " + dots.map(p => `${p.run}, ${p.what}: ${nats(p.y)} at ${percent(p.x)}`).join("; "), {
    width: space(figure), height: 360, marginLeft: 48, marginBottom: 40, x: {label: "parameters, share of the teacher →", tickFormat: percent, domain: [Math.min(.45, d3.min(dots, p => p.x) ?? .45), 1.03]}, y: {label: "↑ KL, nats per token", grid: true, domain: [0, most]},
    marks: [
      Plot.ruleY([0], {stroke: "var(--line)"}),
      Plot.line(lines, {x: "x", y: "y", z: "run", stroke: p => p.colour, strokeWidth: 1.5, clip: true}),
      Plot.dot(dots, {x: "x", y: "y", fill: p => p.colour, r: 6, symbol: "diamond2", stroke: "var(--paper)"}),
      Plot.tip(dots, Plot.pointer({x: "x", y: "y", title: p => `${p.run}\n${p.what}\n${d3.format(".1%")(p.x)} of the parameters, ${nats(p.y)} nats`, ...TIP})),
    ],
  });
  figure.prepend(legend(shown.map((r, i) => [swatch(colours[i % 6]), r.name])));
  const note = document.createElement("p");
  note.className = "hint";
  note.textContent = "Lines are what the scores promise at every size, diamonds what was measured.";
  figure.append(note);
}

// Tables.
const fill = {
  layers: run => run.layers.flatMap((layer, i) => ["attention", "ffn"].filter(h => layer[h].kind !== "removed").map(h => { const c = layer[h], gone = c.removed?.params ?? 0; return [[i, i], [HALF[h]], [c.teacher], [c.child], [percent(c.share), c.share], [gone ? count(gone) : "–", gone], ["damage" in c ? nats(c.damage) : "–", c.damage ?? (("damage" in c) ? Infinity : 0)]]; })),
  stages: run => run.stages.map(s => [[s.name], [s.time, s.seconds], [s.held, s.memory ?? 0], [s.quality + (s.reused ? " (reused)" : "")]]),
};
function rows(table, run) {
  const body = table.tBodies[0];
  if (body.rows.length) return;
  const numeric = [...table.tHead.rows[0].cells].map(c => c.classList.contains("n"));
  for (const line of fill[table.dataset.table](run)) {
    const row = body.insertRow();
    line.forEach(([text, value], i) => { const cell = row.insertCell(); cell.textContent = text; if (numeric[i]) cell.className = "n"; if (value !== undefined) cell.dataset.v = value; });
  }
}
function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const of = row => { const v = row.cells[i].dataset.v; return v === undefined ? row.cells[i].textContent : v === "" ? Infinity : +v; };
      table.tBodies[0].append(...d3.sort(table.tBodies[0].rows, (a, b) => (up ? 1 : -1) * d3.ascending(of(a), of(b))));
    };
  });
}

// Light and dark: the system's, until the button says otherwise.
const system = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("anyblock-theme"); } catch { return null; } };
function theme(name) {
  if (name) root.dataset.theme = name;
  const dark = (name ?? root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  root.toggleAttribute("data-dark", dark);
  document.getElementById("theme-name").textContent = dark ? "light" : "dark";
}
theme(stored());
system.addEventListener("change", () => theme(root.dataset.theme));
document.getElementById("theme").onclick = () => {
  const name = root.hasAttribute("data-dark") ? "light" : "dark";
  theme(name);
  try { localStorage.setItem("anyblock-theme", name); } catch { /* a page from a file may have no storage */ }
};

const started = performance.now();
document.querySelectorAll("article[data-run]").forEach(article => {
  const run = DATA[+article.dataset.run], view = name => article.querySelector(`[data-view=${name}]`);
  const draw = {architecture, waterfall, training, curves, stages};
  for (const [name, how] of Object.entries(draw)) if (view(name)) how(view(name), run);
  if (view("damage")) {
    const order = article.querySelector(".order");
    damage(view("damage"), run, order.value);
    order.onchange = () => damage(view("damage"), run, order.value);
  }
  const cost = article.querySelector(".cost");
  for (const [name, f] of Object.entries(run.front)) cost.append(new Option(f.name, name));
  cost.onchange = () => front(view("front"), run, cost.value);
  if (!cost.options.length) cost.closest(".controls").hidden = true;
  front(view("front"), run, cost.value);
  article.querySelectorAll("table[data-table]").forEach(table => { table.closest("details").addEventListener("toggle", () => rows(table, run)); addEventListener("beforeprint", () => rows(table, run)); });
});
const compared = document.querySelector("[data-view=compare]");
if (compared) compare(compared, DATA);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".copy").forEach(button => {
  button.onclick = async () => {
    const text = button.nextElementSibling.textContent;
    try { await navigator.clipboard.writeText(text); } catch { getSelection().selectAllChildren(button.nextElementSibling); document.execCommand("copy"); }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };
});
root.dataset.drawn = Math.round(performance.now() - started);
})();
